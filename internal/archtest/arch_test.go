package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mirrorbus/mirrorbus/"

// A rule forbids packages to import others, for a reason.
type rule struct {
	reason string
	of     func(pkg string) bool      // which packages it binds; paths relative to the module
	bad    func(imported string) bool // what they must not import; own packages relative to the module
}

var rules = []rule{
	{"trigger and listener meet on the bus, never in memory: a master without mirrors and a mirror without a master must each make sense",
		below("trigger"), below("listener")},
	{"trigger and listener meet on the bus, never in memory: a master without mirrors and a mirror without a master must each make sense",
		below("listener"), below("trigger")},
	{"a transport moves opaque signed bytes and is trusted with nothing, so it has no use for their meaning",
		below("transports"), below("event")},
	{"event is what other implementations copy: the standard library and the SSH formats suffice",
		below("event"), func(p string) bool { return !standard(p) && !below("golang.org/x/crypto")(p) && !below("event")(p) }},
	{"what comes next, and by which plan, is decided from what is given, so that it can be tested and simulated: no I/O",
		only("listener/plan", "listener/pace"), anyOf("os", "os/exec", "net", "net/http", "database/sql", "io/fs", "syscall", "golang.org/x/sys/unix")},
	{"one way to open a database: durability and locking are set in one place",
		except("internal/sqlite"), anyOf("modernc.org/sqlite", "modernc.org/sqlite/lib")},
	{"only these start programs; rsync is started by listener/rsync alone, which knows its traps",
		except("listener/rsync", "listener/exec", "listener/hook", "internal/testenv", "internal/demo"), anyOf("os/exec")},
	{"servers for tests do not belong into the program",
		except("internal/testenv", "transports/transporttest", "trigger/source/sourcetest"),
		anyOf("internal/testenv", "transports/transporttest", "trigger/source/sourcetest", "testing")},
	{"the command line is parsed in cmd and nowhere else",
		outside("cmd"), anyOf("github.com/spf13/cobra", "github.com/spf13/pflag", "flag")},
	{"packages do not depend on the program",
		outside("cmd"), below("cmd")},
}

// ours are the top-level folders that hold packages.
var ours = []string{"cmd", "event", "internal", "listener", "transports", "trigger"}

// standard tells whether an import is of the standard library.
func standard(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".") && !slices.Contains(ours, first)
}

func below(dir string) func(string) bool {
	return func(p string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
}

func outside(dir string) func(string) bool {
	return func(p string) bool { return !below(dir)(p) }
}

func only(pkgs ...string) func(string) bool {
	return func(p string) bool { return slices.Contains(pkgs, p) }
}

func anyOf(pkgs ...string) func(string) bool { return only(pkgs...) }

func except(pkgs ...string) func(string) bool {
	return func(p string) bool { return !slices.Contains(pkgs, p) }
}

// A pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Name       string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Name", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		for i := range p.Imports {
			p.Imports[i] = strings.TrimPrefix(p.Imports[i], module)
		}
		all = append(all, p)
	}
}

func violations(p pkg) []string {
	var found []string
	for _, r := range rules {
		for _, imported := range p.Imports {
			if r.of(p.ImportPath) && r.bad(imported) {
				found = append(found, p.ImportPath+" imports "+imported+": "+r.reason)
			}
		}
	}
	return found
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
}

// A rule that cannot fail is no rule: each one is shown a package that breaks it.
func TestEachRuleCanFail(t *testing.T) {
	for i, broken := range []pkg{
		{ImportPath: "trigger/journal", Imports: []string{"listener"}},
		{ImportPath: "listener", Imports: []string{"trigger/journal"}},
		{ImportPath: "transports/hub", Imports: []string{"event"}},
		{ImportPath: "event/signers", Imports: []string{"github.com/spf13/cobra"}},
		{ImportPath: "listener/plan", Imports: []string{"os"}},
		{ImportPath: "trigger/journal", Imports: []string{"modernc.org/sqlite"}},
		{ImportPath: "listener/catchup", Imports: []string{"os/exec"}},
		{ImportPath: "trigger", Imports: []string{"internal/testenv"}},
		{ImportPath: "trigger", Imports: []string{"github.com/spf13/cobra"}},
		{ImportPath: "internal/demo", Imports: []string{"cmd/mirrorbus"}},
	} {
		if len(violations(broken)) == 0 || !strings.Contains(violations(broken)[0], rules[i].reason) {
			t.Errorf("rule %d (%s) does not see %+v", i, rules[i].reason, broken)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: its documentation must begin with %q, is %q", p.ImportPath, want, p.Doc)
		}
	}
}
