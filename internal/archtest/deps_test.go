package archtest

import (
	"os"
	"strings"
	"testing"
)

// What the program is made of is a short list that somebody has read: each module it requires by itself stands in CONTRIBUTING.md with its reason, and
// has its checksum. The tools that check it are required elsewhere, so that they cannot bring anything in.
func TestEveryDependencyHasAReason(t *testing.T) {
	mod, sum, page := text(t, "../../go.mod"), text(t, "../../go.sum"), text(t, "../../CONTRIBUTING.md")
	_, table, ok := strings.Cut(page, "\n## Dependencies\n")
	if !ok {
		t.Fatal("CONTRIBUTING.md has no table of dependencies")
	}
	if strings.Contains(mod, "\nreplace ") || strings.Contains(mod, "\ntool ") {
		t.Error("go.mod replaces modules, or holds tools")
	}
	found := 0
	for line := range strings.Lines(mod) {
		path, version, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.HasPrefix(line, "\t") || !ok || strings.HasSuffix(version, "// indirect") {
			continue
		}
		found++
		short := strings.TrimPrefix(path, "golang.org/") // the table names several of a kind together
		if !strings.Contains(table, path) && !strings.Contains(table, " "+short+",") && !strings.Contains(table, " "+short+" ") {
			t.Errorf("%s has no reason in CONTRIBUTING.md", path)
		}
		if !strings.Contains(sum, "\n"+path+" "+version+" h1:") && !strings.HasPrefix(sum, path+" "+version+" h1:") {
			t.Errorf("%s %s has no checksum in go.sum", path, version)
		}
	}
	if found < 10 {
		t.Errorf("only %d modules were found in go.mod", found)
	}
}

func text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
