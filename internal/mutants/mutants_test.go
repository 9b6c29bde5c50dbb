package mutants

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"
)

const root = "../.."

// A mutant is one fault.
type mutant struct {
	name     string // what is wrong then
	file     string
	old, new string // old stands once in file
	pkg      string // whose tests must notice
	tests    string // which, as for go test -run
}

func all() []mutant { return slices.Concat(ofEvent, ofTrigger, ofTransports, ofListener, ofTree) }

// apply returns the file with the fault in it.
func (m mutant) apply() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 || m.old == m.new {
		return nil, fmt.Errorf("the text to replace stands %d times in %s:\n%s", n, m.file, m.old)
	}
	text = bytes.Replace(text, []byte(m.old), []byte(m.new), 1)
	_, err = parser.ParseFile(token.NewFileSet(), m.file, text, parser.SkipObjectResolution)
	return text, err
}

func TestEntriesFitTheCode(t *testing.T) {
	names := map[string]bool{}
	for _, m := range all() {
		if names[m.name] {
			t.Errorf("%s stands twice", m.name)
		}
		names[m.name] = true
		if _, err := m.apply(); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		checkTests(t, m)
	}
}

var declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// checkTests fails unless the tests of an entry exist.
func checkTests(t *testing.T, m mutant) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, m.pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	run, err := regexp.Compile(m.tests)
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range declared.FindAllSubmatch(text, -1) {
			if run.Match(found[1]) {
				return
			}
		}
	}
	t.Errorf("%s: there is no test %s in %s", m.name, m.tests, m.pkg)
}

// few are the mutants that go test runs, chosen because they build and fail quickly.
var few = []string{"a flip is signed as an announcement", "deletions come before metadata", "a key that was revoked is trusted"}

// TestMutants makes each fault and expects the tests that are named for it to fail: the few, or those whose name matches MIRRORBUS_MUTANTS.
func TestMutants(t *testing.T) {
	pattern, asked := os.LookupEnv("MIRRORBUS_MUTANTS")
	chosen, err := regexp.Compile(pattern)
	if err != nil {
		t.Fatalf("MIRRORBUS_MUTANTS: %v", err)
	}
	b := bench{dir: t.TempDir(), sound: map[string]bool{}, built: map[string]string{}}
	caught, missed := 0, 0
	for _, m := range all() {
		if asked && !chosen.MatchString(m.name) || !asked && !slices.Contains(few, m.name) {
			continue
		}
		began := time.Now()
		by := b.run(t, m)
		if by != "" {
			caught++
		} else {
			missed++
			by = "MISSED"
			t.Errorf("%s: no test of %s matching %s noticed", m.name, m.pkg, m.tests)
		}
		if asked {
			fmt.Printf("%-75s %-20s %s (%.1fs)\n", m.name, m.pkg, by, time.Since(began).Seconds())
		}
	}
	if asked {
		fmt.Printf("%d mutants caught, %d missed\n", caught, missed)
	}
}

// A bench builds and runs tests.
type bench struct {
	dir   string
	sound map[string]bool   // tests that were seen to pass without a fault
	built map[string]string // the programs without a fault, by package
}

// run returns the name of the test that noticed, or "".
func (b bench) run(t *testing.T, m mutant) string {
	t.Helper()
	if !b.isSound(t, m) {
		return ""
	}
	text, err := m.apply()
	if err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	file, overlay := filepath.Join(b.dir, "mutant.go"), filepath.Join(b.dir, "overlay.json")
	real, err := filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{real: file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{file: text, overlay: list} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program, ok := b.build(t, m, "-overlay="+overlay)
	if !ok {
		return ""
	}
	out, err := b.test(t, m, program)
	if err == nil {
		return ""
	}
	return failure(out)
}

// isSound tells whether the tests pass as things are: else a failure would say nothing.
func (b bench) isSound(t *testing.T, m mutant) bool {
	t.Helper()
	if b.built[m.pkg] == "" {
		program, ok := b.build(t, m)
		if !ok {
			return false
		}
		b.built[m.pkg] = program
	}
	key := m.pkg + " " + m.tests
	if !b.sound[key] {
		if out, err := b.test(t, m, b.built[m.pkg]); err != nil {
			t.Errorf("%s: %s of %s fails without it: %v\n%s", m.name, m.tests, m.pkg, err, out)
			return false
		}
		b.sound[key] = true
	}
	return true
}

// build builds the tests of the entry's package.
func (b bench) build(t *testing.T, m mutant, flags ...string) (program string, ok bool) {
	t.Helper()
	program = filepath.Join(b.dir, "mutant.test")
	if len(flags) == 0 {
		program = filepath.Join(b.dir, strconv.Itoa(len(b.built))+".test")
	}
	build := exec.Command("go", slices.Concat([]string{"test", "-c", "-o", program}, flags, []string{"."})...)
	build.Dir = filepath.Join(root, m.pkg)
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("%s: does not build: %v\n%s", m.name, err, out)
		return "", false
	}
	return program, true
}

// test runs the tests of the entry.
func (b bench) test(t *testing.T, m mutant, program string) ([]byte, error) {
	t.Helper()
	run := exec.Command(program, "-test.run=^("+m.tests+")$", "-test.timeout=3m", "-test.failfast")
	run.Dir = filepath.Join(root, m.pkg)
	if usesRapid(t, run.Dir) {
		run.Args = append(run.Args, "-rapid.nofailfile") // or it would leave the failure in the tree
	}
	return run.CombinedOutput()
}

func usesRapid(t *testing.T, dir string) bool {
	t.Helper()
	out, err := exec.Command("go", "list", "-test", "-f", `{{join .TestImports " "}} {{join .XTestImports " "}}`, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("imports of %s: %v\n%s", dir, err, out)
	}
	return bytes.Contains(out, []byte("pgregory.net/rapid"))
}

var (
	failed  = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)
	running = regexp.MustCompile(`(?m)^\s+(Test\w+) \(`)
)

// failure names the test that failed, by what go test printed.
func failure(out []byte) string {
	if m := failed.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	switch m := running.FindSubmatch(out); {
	case bytes.Contains(out, []byte("panic: test timed out")) && m != nil:
		return string(m[1]) + " (it never ends)"
	case bytes.Contains(out, []byte("panic: ")), bytes.Contains(out, []byte("fatal error: ")):
		return "a panic"
	}
	return ""
}
