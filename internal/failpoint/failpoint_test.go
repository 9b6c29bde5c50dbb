package failpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// marked are the names that source files pass to failpoint.Here, with where they stand.
func marked(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if ok && isHere(call.Fun) {
				name := literal(call)
				found[name] = append(found[name], files.Position(call.Pos()).String())
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func isHere(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Here" {
		return false
	}
	pkg, ok := s.X.(*ast.Ident)
	return ok && pkg.Name == "failpoint"
}

// literal is the name that a call passes, or what is wrong with it.
func literal(call *ast.CallExpr) string {
	if len(call.Args) == 1 {
		if l, ok := call.Args[0].(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				return s
			}
		}
	}
	return "a name that is not written out"
}

// The table and the source name the same points, each at one place.
func TestEveryPointIsListedAndMarked(t *testing.T) {
	found := marked(t, "../..")
	listed := map[string]bool{}
	for _, p := range failpoint.Points() {
		if listed[p.Name] {
			t.Errorf("%s is listed twice", p.Name)
		}
		listed[p.Name] = true
		if n := len(found[p.Name]); n != 1 {
			t.Errorf("%s is marked at %d places, must be at one: %s", p.Name, n, strings.Join(found[p.Name], ", "))
		}
	}
	for name, places := range found {
		if !listed[name] {
			t.Errorf("%s: %q is no point of the table", strings.Join(places, ", "), name)
		}
	}
}

func TestEveryPointSaysWhatIsTrue(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+\.[a-z]+$`)
	for _, p := range failpoint.Points() {
		if !name.MatchString(p.Name) || len(p.Meaning) < 10 || strings.Contains(p.Meaning, "\n") {
			t.Errorf("%+v", p)
		}
		if p.Daemon != failpoint.Hub && p.Daemon != failpoint.Agent && p.Daemon != failpoint.Both {
			t.Errorf("%s: daemon %q", p.Name, p.Daemon)
		}
	}
}

// A search that finds nothing proves nothing: it must see what is wrong in a file of its own.
func TestTheSearchCanFail(t *testing.T) {
	dir := t.TempDir()
	source := "package x\nfunc f(n string) {\n\tfailpoint.Here(\"no.such\")\n\tfailpoint.Here(n)\n}\n"
	if err := os.WriteFile(filepath.Join(dir, "x.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := marked(t, dir); len(found["no.such"]) != 1 || len(found["a name that is not written out"]) != 1 {
		t.Errorf("found %v", found)
	}
}

// What is shipped has no failpoints, whatever the environment says.
func TestShippedProgramPassesEveryPoint(t *testing.T) {
	if failpoint.Enabled {
		t.Skip("built with the tag failpoint")
	}
	t.Setenv(failpoint.Env, "publish.asked:1")
	t.Setenv(failpoint.EnvLeftOut, string(failpoint.Syncfs))
	failpoint.Here("publish.asked")
	if failpoint.LeftOut(failpoint.Syncfs) {
		t.Error("a safeguard can be left out")
	}
}
