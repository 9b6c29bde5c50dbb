package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/replay"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const module = "day"

// A world is a master with a real rsync daemon and a hub, and mirrors with their agents, all as processes of the program.
type world struct {
	t       *testing.T
	dir     string
	program string
	tree    string // the master's
	mark    string
	rsyncd  *testenv.Rsyncd
	hub     *supervised
	source  *supervised // the program's watch; nil where what changes is published
	buses   []string    // what everything goes by
	servers []server    // that these need
	mirrors []*mirror
	claims  string // file, see replay.Claim
	said    []announced
	bound   atomic.Uint64 // no serial above this was announced
	bursts  int           // of changes that the kernel could not tell all of
	whole   event.Serial  // the first that was announced when all servers ran again; 0: none of them was killed

	mu    sync.Mutex
	notes []string // what must not happen
}

// A mirror is one of the mirrors.
type mirror struct {
	name, dir, tree string
	filter          []string // its subset
	allLinks        bool     // takes symbolic links that leave the tree, too
	second          bool     // pulls from another mirror
	hears           []string // by which transports; nil: by all buses of the world
	agent           *supervised

	seen   event.Serial // the watcher's: what was applied, since when, on which stages, the longest time without progress, and the reason
	since  time.Time
	looked time.Time
	spent  map[string]time.Duration
	stuck  time.Duration
	why    string
}

// An announced is what was published as one serial.
type announced struct {
	serial event.Serial
	kind   string
	names  []string
}

func (m *mirror) config() string     { return filepath.Join(m.dir, "etc", "mirror.toml") }
func (m *mirror) socket() string     { return filepath.Join(m.dir, "sock") }
func (w *world) config() string      { return filepath.Join(w.dir, "master", "etc", "master.toml") }
func (w *world) socket() string      { return filepath.Join(w.dir, "master", "sock") }
func (w *world) log(n string) string { return filepath.Join(w.dir, n+".log") }

// fault notes what must not happen. The test goes on, since what comes of it is of interest.
func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.notes) < 100 {
		w.notes = append(w.notes, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// newWorld enrols mirrors of the tree: one that is empty, one with a subset that was filled by plain rsync, one that pulls through ssh, and one behind the
// first, which takes all links so that those behind it find them.
func newWorld(t *testing.T, dir, tree string, seed uint64) *world {
	t.Helper()
	w, join := newMaster(t, dir, tree)
	subset := &mirror{name: "subset", filter: append([]string{"- *.skip"}, someFolders(t, tree, seed)...)}
	for _, m := range []*mirror{{name: "empty", allLinks: true}, subset, {name: "shell", allLinks: true}, {name: "tier2", second: true}} {
		w.enrol(m, join)
	}
	w.pullThroughShell(w.mirrors[2])
	w.behind(w.mirrors[3], w.mirrors[0])
	w.need("rsync", append(append([]string{"-aH"}, w.filters(subset)...), w.rsyncd.URL(module)+"/", subset.tree+"/")...)
	return w
}

// newMaster builds the program, and makes a master of the tree by the program's own commands. join is the word for those who join.
func newMaster(t *testing.T, dir, tree string) (w *world, join string) {
	t.Helper()
	w = &world{t: t, dir: dir, tree: tree, buses: []string{"hub"}, program: filepath.Join(dir, "mirrorbus"), claims: filepath.Join(dir, "claims"), mark: "MIRRORBUS_SOAK_RUN=" + dir}
	build := []string{"build", "-o", w.program}
	if os.Getenv("MIRRORBUS_SOAK_RACE") == "1" {
		build = append(build, "-race")
	}
	w.need("go", append(build, "github.com/mirrorbus/mirrorbus/cmd/mirrorbus")...)
	w.rsyncd = testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: module, Path: tree})
	hub := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	master := filepath.Join(dir, "master")
	out := w.need(w.program, "init", "master", "--dir", filepath.Join(master, "etc"), "--state", filepath.Join(master, "state"), "--socket", w.socket(),
		"--listen", hub, "--address", hub, "--rsync", strings.TrimSuffix(w.rsyncd.URL(""), "/"), "--module", module+"="+tree)
	w.hub = w.daemon("hub", "hub", w.config())
	return w, regexp.MustCompile(`mirrorbus-join1\.[\w-]+`).FindString(out)
}

// behind lets a mirror pull from another one, as that serves others.
func (w *world) behind(m, above *mirror) {
	w.t.Helper()
	served := testenv.StartRsyncd(w.t, testenv.RsyncdOptions{}, testenv.Module{Name: module, Path: above.tree})
	w.edit(m, w.rsyncd.URL(module), served.URL(module))
}

func (w *world) daemon(name, verb, config string) *supervised {
	return &supervised{name: name, argv: []string{w.program, verb, "-c", config}, mark: w.mark, log: w.log(name), note: w.fault}
}

// enrol makes a mirror by the program's own commands; what they do not ask for is edited as an administrator would.
func (w *world) enrol(m *mirror, join string) {
	w.t.Helper()
	m.dir = filepath.Join(w.dir, m.name)
	m.tree = filepath.Join(m.dir, "tree")
	if err := os.MkdirAll(m.tree, 0o755); err != nil {
		w.t.Fatal(err)
	}
	out := w.need(w.program, "init", "mirror", "--dir", filepath.Join(m.dir, "etc"), "--state", filepath.Join(m.dir, "state"), "--socket", m.socket(),
		"--name", m.name, "--module", module+"="+m.tree, "--join", join)
	add := regexp.MustCompile(`mirror add (\S+) '([^']+)'`).FindStringSubmatch(out)
	if add == nil {
		w.t.Fatalf("init mirror does not say what to run on the master: %s", out)
	}
	w.need(w.program, "mirror", "add", "-c", w.config(), add[1], add[2])
	if len(m.filter) > 0 {
		w.edit(m, "[transport.hub]", "filter = "+quoted(m.filter)+"\n[transport.hub]")
	}
	// A day in an hour deletes more than any operator expects of one batch.
	w.edit(m, "[transport.hub]", "max_delete = 1000000\nmax_delete_ratio = 1.0\n[transport.hub]")
	if m.allLinks {
		w.edit(m, "[transport.hub]", "unsafe_links = true\n[transport.hub]")
	}
	m.agent = w.daemon("agent-"+m.name, "agent", m.config())
	m.since, m.looked, m.spent = time.Now(), time.Now(), map[string]time.Duration{}
	w.mirrors = append(w.mirrors, m)
}

// pullThroughShell gives the mirror the upstream host:/path, reached through a real sshd.
func (w *world) pullThroughShell(m *mirror) {
	w.t.Helper()
	sshd := testenv.StartSSHD(w.t, "")
	w.edit(m, w.rsyncd.URL(module), "127.0.0.1:"+w.tree)
	w.edit(m, "[transport.hub]", "remote_shell = "+quoted(sshd.Shell())+"\n[transport.hub]")
}

func quoted(list []string) string {
	b, err := json.Marshal(list) // what JSON makes of plain text is TOML
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (w *world) edit(m *mirror, old, now string) {
	w.t.Helper()
	text, err := os.ReadFile(m.config())
	if err != nil {
		w.t.Fatal(err)
	}
	edited := strings.Replace(string(text), old, now, 1)
	if edited == string(text) {
		w.t.Fatalf("%s has no %s", m.config(), old)
	}
	if err := os.WriteFile(m.config(), []byte(edited), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// someFolders are rules that exclude up to three folders of the tree, two levels down where there are such.
func someFolders(t *testing.T, tree string, seed uint64) []string {
	t.Helper()
	all, err := filepath.Glob(tree + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	plain := regexp.MustCompile(`^[\w./-]+$`)
	for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(len(all)) {
		fi, err := os.Lstat(all[i])
		if rel := strings.TrimPrefix(all[i], tree); err == nil && fi.IsDir() && plain.MatchString(rel) && len(rules) < 3 {
			rules = append(rules, "- "+rel+"/")
		}
	}
	return rules
}

// filters are the options with which rsync takes what the mirror takes.
func (w *world) filters(m *mirror) []string {
	args := []string{"--filter=H /.mirrorbus/", "--filter=P /.mirrorbus/"}
	for _, f := range m.filter {
		args = append(args, "--filter="+f)
	}
	return args
}

// run runs a program to its end.
func (w *world) run(ctx context.Context, in string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), w.mark)
	cmd.Stdin = strings.NewReader(in)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv[:min(len(argv), 3)], " "), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// need runs a program that must succeed.
func (w *world) need(program string, args ...string) string {
	w.t.Helper()
	out, err := w.run(w.t.Context(), "", append([]string{program}, args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// announce publishes names after it has written down for the watcher what is said.
func (w *world) announce(ctx context.Context, kind string, names []string, options ...string) error {
	c, err := replay.NewClaim(w.tree, names)
	if err == nil {
		err = c.Append(w.claims)
	}
	if err == nil {
		err = w.publish(ctx, kind, names, options...)
	}
	if err != nil {
		return err
	}
	return replay.Claim{Serial: w.said[len(w.said)-1].serial}.Append(w.claims)
}

// publish announces names. While the hub is away or coming it is tried again, as a compose hook would.
func (w *world) publish(ctx context.Context, kind string, names []string, options ...string) error {
	argv := append([]string{w.program, "publish", "-c", w.config(), "--json", "--from", "-", "-0"}, options...)
	in := strings.Join(names, "\x00") + "\x00"
	deadline := time.Now().Add(30 * time.Second)
	for {
		w.bound.Add(1)
		out, err := w.run(ctx, in, append(argv, module)...)
		var p trigger.Published
		if err == nil {
			err = json.Unmarshal([]byte(out), &p)
		}
		if err == nil {
			w.bound.Store(uint64(p.Serial))
			w.said = append(w.said, announced{p.Serial, kind, names})
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) || strings.Contains(err.Error(), "exit status 2") {
			return fmt.Errorf("%s: %w", kind, err)
		}
		w.t.Logf("publish again: %v", err)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// ask reads what a daemon says of itself; false if it does not run at the moment.
func ask(ctx context.Context, socket string, out any) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return control.NewClient(socket).Do(ctx, "GET", "/v1/status", nil, out) == nil
}
