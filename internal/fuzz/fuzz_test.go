package fuzz

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// A target is one fuzz function.
type target struct{ dir, name string }

var declared = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// targets finds the fuzz functions of the module in the order of their folders.
func targets(t *testing.T) []target {
	t.Helper()
	var all []target
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			all = append(all, target{filepath.Dir(path), string(m[1])})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTargetsAreFound(t *testing.T) {
	packages := map[string]bool{}
	for _, f := range targets(t) {
		packages[strings.TrimPrefix(f.dir, root+"/")] = true
	}
	for _, want := range []string{"event", "event/signers", "internal/envelope", "listener/plan", "transports/mail", "transports/poll", "transports/wire"} {
		if !packages[want] {
			t.Errorf("no fuzz target was found in %s", want)
		}
	}
}

// TestFuzz runs each target for MIRRORBUS_FUZZTIME, or without it none. MIRRORBUS_FUZZ is a pattern of "folder Target". What makes a target fail
// is kept below testdata/fuzz of its package, from where go test runs it from then on.
func TestFuzz(t *testing.T) {
	text, asked := os.LookupEnv("MIRRORBUS_FUZZTIME")
	if !asked {
		t.Skip("make fuzz runs the targets; here go test runs their seeds and kept inputs only")
	}
	each, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("MIRRORBUS_FUZZTIME: %v", err)
	}
	only, err := regexp.Compile(os.Getenv("MIRRORBUS_FUZZ"))
	if err != nil {
		t.Fatalf("MIRRORBUS_FUZZ: %v", err)
	}
	b := bench{built: map[string]string{}, into: t.TempDir(), cache: cacheDir(t)}
	for _, f := range targets(t) {
		if only.MatchString(f.dir + " " + f.name) {
			b.run(t, f, each)
		}
	}
}

// cacheDir is where go test -fuzz keeps inputs of interest from run to run.
func cacheDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "fuzz")
}

// A bench holds the test programs, each built once.
type bench struct {
	built       map[string]string // by folder
	into, cache string
}

// build compiles the tests of a folder as go test -fuzz does, with coverage counters, or returns "".
func (b bench) build(t *testing.T, dir string) string {
	t.Helper()
	if program, ok := b.built[dir]; ok {
		return program
	}
	program := filepath.Join(b.into, strconv.Itoa(len(b.built)))
	c := exec.Command("go", "test", "-c", "-fuzz=.", "-o", program, ".")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("build the tests of %s: %v\n%s", dir, err, out)
		program = ""
	}
	b.built[dir] = program
	return program
}

var progress = regexp.MustCompile(`execs: (\d+) .*\(total: (\d+)\)`)

// run fuzzes one target and prints what that came to.
func (b bench) run(t *testing.T, f target, each time.Duration) {
	t.Helper()
	program := b.build(t, f.dir)
	if program == "" {
		return
	}
	c := exec.Command(program, "-test.run=^$", "-test.fuzz=^"+f.name+"$", "-test.fuzztime="+each.String(), "-test.fuzzminimizetime=2s",
		"-test.parallel="+strconv.Itoa(runtime.GOMAXPROCS(0)), "-test.fuzzcachedir="+filepath.Join(b.cache, "mirrorbus", strings.TrimPrefix(f.dir, root)))
	c.Dir = f.dir
	out, err := c.CombinedOutput()
	cpu := c.ProcessState.UserTime() + c.ProcessState.SystemTime() // of its workers too, which it has waited for
	execs, inputs := "0", "0"
	if all := progress.FindAllSubmatch(out, -1); all != nil {
		execs, inputs = string(all[len(all)-1][1]), string(all[len(all)-1][2])
	}
	fmt.Printf("%-22s %-26s %12s execs %8.1f CPU seconds %6s inputs of interest\n", strings.TrimPrefix(f.dir, root+"/"), f.name, execs, cpu.Seconds(), inputs)
	if err != nil {
		t.Errorf("%s %s: %v\n%s", f.dir, f.name, err, out)
	}
}
