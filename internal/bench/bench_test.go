package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// options are the sizes of a run. `make bench` sets them through the environment.
type options struct {
	lines       []string
	small, big  int   // files in the two modules
	changed     []int // paths in a change
	rounds      int   // of which medians are taken
	crowd       int   // entries of the directory that is flipped
	agents      int   // that idle
	subscribers int   // of one hub
	mirrors     int   // of one broker, at most
	messages    int   // published in a round of line 9
	idle        time.Duration
	storing     time.Duration // a round of line 4
	never       time.Duration // what line 15 has not seen after so long, does not come
}

// A bench is one run of some lines.
type bench struct {
	options
	*testing.T
	ctx     context.Context
	dir     string
	program string
	rows    []row
	sites   map[int]*site // by their number of files; kept for later lines
}

// A line is one line of the table.
type line struct {
	name, about string
	run         func(*bench) error
	files       func(options) int // how many it makes at most
}

var lines = []line{
	{"1", "a change, announced to applied", (*bench).changes, func(o options) int { return 3 * (o.small + o.big) }},
	{"2", "a flip, announced to visible", (*bench).flips, func(o options) int { return 3 * o.crowd }},
	{"3", "nothing changed", (*bench).nothing, func(o options) int { return (o.agents + 2) * filesWhenIdle }},
	{"4", "durable announcements", (*bench).announcements, noFiles},
	{"5", "a change of everything, and the manifest", (*bench).everything, func(o options) int { return 3 * o.big }},
	{"6", "many subscribers", (*bench).subscriptions, noFiles},
	{"7", "a push by ssh, as Debian's mirrors do it", (*bench).pushes, func(o options) int { return 3 * (o.small + o.big) }},
	{"8", "AMQP: announced to received", (*bench).reached, noFiles},
	{"9", "AMQP: announcements confirmed", (*bench).confirmed, noFiles},
	{"10", "AMQP: mirrors that are away", (*bench).backlog, noFiles},
	{"11", "AMQP: the broker is killed", (*bench).restarts, noFiles},
	{"12", "AMQP: what a mirror costs the broker", (*bench).upkeep, noFiles},
	{"13", "other transports: announced to received", (*bench).acts, noFiles},
	{"14", "a scan, and manifests", (*bench).scans, func(o options) int { return 3 * o.big }},
	{"15", "a tree that is watched", (*bench).live, func(o options) int { return 5 * o.big }},
	{"16", "a mirror that only looks: nothing new", (*bench).nullPoll, func(o options) int { return 3 * o.small }},
	{"17", "a mirror that only looks: much missed", (*bench).away, func(o options) int { return 3 * o.small }},
}

func noFiles(options) int { return 0 }

// allLines names every line, as LINES does.
func allLines() string {
	var names []string
	for _, l := range lines {
		names = append(names, l.name)
	}
	return strings.Join(names, ",")
}

// TestBench prints the table at full size. `make bench` runs it; it takes more than an hour and is no part of `make test`.
func TestBench(t *testing.T) {
	if os.Getenv("MIRRORBUS_BENCH") == "" {
		t.Skip("figures take more than an hour: run make bench")
	}
	run(t, options{
		lines: strings.Split(text("LINES", allLines()), ","), small: number(t, "SMALL", 10_000), big: number(t, "FILES", 1_000_000),
		changed: numbers(t, "CHANGED", "1,100,10000"),
		rounds:  number(t, "ROUNDS", 5), crowd: number(t, "CROWD", 100_000), agents: number(t, "AGENTS", 100), subscribers: number(t, "SUBSCRIBERS", 1000),
		mirrors: number(t, "MIRRORS", 1000), messages: number(t, "MESSAGES", 10_000),
		idle: time.Duration(number(t, "IDLE", 60)) * time.Second, storing: 2 * time.Second, never: time.Minute,
	})
}

// TestLines runs every line but that of ftpsync once at a size that shows nothing but that it works.
func TestLines(t *testing.T) {
	if testing.Short() {
		t.Skip("starts dozens of daemons")
	}
	b := run(t, options{
		lines: slices.DeleteFunc(strings.Split(allLines(), ","), func(name string) bool { return name == "7" }),
		small: 200, big: 400, changed: []int{1, 100}, rounds: 1, crowd: 200, agents: 2, subscribers: 5, mirrors: 3, messages: 200,
		idle: time.Second, storing: 50 * time.Millisecond, never: 10 * time.Second,
	})
	if len(b.rows) < 20 {
		t.Errorf("%d rows, the table is not whole", len(b.rows))
	}
	for _, r := range b.rows {
		if r.ours < 0 || r.theirs < 0 || r.what == "" {
			t.Errorf("row %+v", r)
		}
	}
}

// run runs lines and prints the table. An interrupt ends it, with all that it has started.
func run(t *testing.T, o options) *bench {
	t.Helper()
	testenv.Need(t, "rsync", "go", "strace", "find", "sshd", "ngircd")
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{options: o, T: t, ctx: ctx, dir: folder(t), sites: map[int]*site{}}
	chosen := b.choose()
	b.needRoom(chosen)
	b.prepare()
	say("%s\n", machine())
	for _, l := range chosen {
		start := time.Now()
		say("line %s: %s", l.name, l.about)
		err := l.run(b)
		if err != nil {
			b.Errorf("line %s: %v", l.name, err)
		}
		say("line %s took %s\n", l.name, time.Since(start).Round(time.Second))
		if ctx.Err() != nil {
			break
		}
	}
	say("%s", plain(b.rows))
	say("As Markdown:\n\n%s", b.report())
	return b
}

// report is what goes into the README. It is also written to the file that OUT names.
func (b *bench) report() string {
	b.Helper()
	text := machine() + ".\n\n" + markdown(b.rows)
	if out := os.Getenv("MIRRORBUS_BENCH_OUT"); out != "" {
		if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
			b.Error(err)
		}
	}
	return text
}

func (b *bench) choose() (chosen []line) {
	b.Helper()
	for _, name := range b.lines {
		i := slices.IndexFunc(lines, func(l line) bool { return l.name == name })
		if i < 0 {
			b.Fatalf("line %q: there is none; the last is %s", name, lines[len(lines)-1].name)
		}
		chosen = append(chosen, lines[i])
	}
	return chosen
}

// needRoom makes sure, before anything is made, that the trees will fit.
func (b *bench) needRoom(chosen []line) {
	b.Helper()
	files := 0
	for _, l := range chosen {
		files = max(files, l.files(b.options))
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(b.dir, &fs); err != nil {
		b.Fatal(err)
	}
	inodes, bytes := uint64(files)*5/4+100_000, uint64(files)*bytesPerFile+8<<30
	if fs.Ffree < inodes && fs.Files > 0 || fs.Bavail*uint64(fs.Bsize) < bytes {
		b.Fatalf("%s has %d free inodes and %d MiB, these lines need %d and %d MiB: set TMPDIR to a larger disk, or FILES to fewer than %d",
			b.dir, fs.Ffree, fs.Bavail*uint64(fs.Bsize)>>20, inodes, bytes>>20, b.big)
	}
}

// prepare builds the program, and copies rsync to a place where nobody else runs it, so that its starts can be counted.
func (b *bench) prepare() {
	b.Helper()
	bin := filepath.Join(b.dir, "bin")
	rsync, err := exec.LookPath("rsync")
	if err == nil {
		err = errors.Join(os.Mkdir(bin, 0o755), copyFile(rsync, filepath.Join(bin, "rsync")))
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if b.program = text("PROGRAM", ""); b.program != "" {
		return
	}
	b.program = filepath.Join(bin, "mirrorbus")
	if _, err := b.output("", "go", "build", "-o", b.program, "github.com/mirrorbus/mirrorbus/cmd/mirrorbus"); err != nil {
		b.Fatal(err)
	}
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// output runs a program to its end. The error holds what it said.
func (b *bench) output(in string, argv ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, argv[0], argv[1:]...)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(in), &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), err
}

// folder is where everything is made, not deep below the temporary directory.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func text(name, otherwise string) string {
	if v := os.Getenv("MIRRORBUS_BENCH_" + name); v != "" {
		return v
	}
	return otherwise
}

func number(t *testing.T, name string, otherwise int) int {
	return numbers(t, name, strconv.Itoa(otherwise))[0]
}

func numbers(t *testing.T, name, otherwise string) (all []int) {
	t.Helper()
	for _, word := range strings.Split(text(name, otherwise), ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			t.Fatalf("%s=%s: must be numbers from 1", name, text(name, ""))
		}
		all = append(all, n)
	}
	return all
}
