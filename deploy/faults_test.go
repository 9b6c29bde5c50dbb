package deploy

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notYet are the rows of FAULTS.md that need a part which is not built.
var notYet = []string{"T25"}

// Each row of FAULTS.md and BAD-INPUT.md names a test that is there, but for those of parts that are not built. No row is missing.
func TestFaultsNameTheirTests(t *testing.T) {
	want := map[string][]string{"Rules": numbers("I", 9), "Faults": numbers("", 31), "Threats": numbers("T", 26), "rsync's traps": numbers("", 32),
		"How other tools lose a trigger": {"A", "A2", "B", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M"}}
	page := tables(read(t, "FAULTS.md"))
	for section, ids := range want {
		var got []string
		for _, r := range page[section] {
			got = append(got, r.cells[0])
		}
		if !slices.Equal(got, ids) {
			t.Errorf("section %q has the rows %q, want %q", section, got, ids)
		}
	}
	var open []string
	for _, section := range slices.Sorted(maps.Keys(page)) {
		for _, r := range page[section] {
			if strings.HasPrefix(r.shown(), "not yet: comes with ") {
				open = append(open, r.cells[0])
				continue
			}
			r.check(t, section)
		}
	}
	if slices.Sort(open); !slices.Equal(open, notYet) {
		t.Errorf("rows %q say not yet, want %q", open, notYet)
	}
	for section, rows := range tables(read(t, "BAD-INPUT.md")) {
		for _, r := range rows {
			r.check(t, section)
		}
	}
}

func numbers(prefix string, n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(prefix, i+1))
	}
	return all
}

// A row is one line of a table; what shows it stands in its last cell.
type row struct{ cells []string }

func (r row) shown() string { return r.cells[len(r.cells)-1] }

// tables are the rows of a page by the heading above them, without the head of each table.
func tables(page string) map[string][]row {
	all := map[string][]row{}
	section, line := "", 0
	for l := range strings.Lines(page) {
		l = strings.TrimSpace(l)
		if heading, ok := strings.CutPrefix(l, "## "); ok {
			section = heading
		}
		if !strings.HasPrefix(l, "|") {
			line = 0
			continue
		}
		if line++; line > 2 {
			cells := strings.Split(strings.Trim(l, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			all[section] = append(all[section], row{cells})
		}
	}
	return all
}

var quoted = regexp.MustCompile("`([^`]+)`")

// check fails the test unless what the last cell names is there: scripts, tests of packages, vectors of packages.
func (r row) check(t *testing.T, section string) {
	t.Helper()
	found := 0
	for clause := range strings.SplitSeq(r.shown(), ";") {
		clause, _, _ = strings.Cut(strings.TrimSpace(clause), " (")
		names, isScript := strings.CutPrefix(strings.Replace(clause, "scripts ", "script ", 1), "script ")
		if isScript {
			for name := range strings.SplitSeq(names, ", ") {
				if _, err := os.Stat("../cmd/mirrorbus/testdata/script/" + name + ".txtar"); err != nil {
					t.Errorf("%s, %s: script %s: %v", section, r.cells[0], name, err)
				}
				found++
			}
			continue
		}
		folders, _, _ := strings.Cut(strings.Replace(clause, " vectors", " `", 1), " `")
		for folder := range strings.SplitSeq(folders, " and ") {
			for _, m := range quoted.FindAllStringSubmatch(clause, -1) {
				if !hasTest(t, folder, m[1]) {
					t.Errorf("%s, %s: %s has no test %s", section, r.cells[0], folder, m[1])
				}
				found++
			}
			if strings.Contains(clause, "vectors") {
				if _, err := os.Stat(filepath.Join("..", folder, "testdata")); err != nil && folder != "event/sshsig" { // whose are event's
					t.Errorf("%s, %s: vectors of %s: %v", section, r.cells[0], folder, err)
				}
				found++
			}
		}
	}
	if found == 0 {
		t.Errorf("%s, %s: no test is named in %q", section, r.cells[0], r.shown())
	}
}

// hasTest tells whether a package has a test of that name.
func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.Contains(read(t, file), "\nfunc "+name+"(t *testing.T) {") {
			return true
		}
	}
	return false
}

// The check above can fail.
func TestARowWithoutItsTestIsSeen(t *testing.T) {
	for cell, want := range map[string]bool{"deploy `TestReadme`": true, "deploy `TestNoSuch`": false, "nowhere `TestReadme`": false} {
		folder, name, _ := strings.Cut(cell, " ")
		if got := hasTest(t, folder, strings.Trim(name, "`")); got != want {
			t.Errorf("%s: %t", cell, got)
		}
	}
	page := tables("## One\n\n| # | test |\n|---|---|\n| 1 | x |\n\ntext\n\n| # | test |\n|---|---|\n| 2 | y |\n")
	if len(page) != 1 || len(page["One"]) != 2 || page["One"][1].shown() != "y" {
		t.Errorf("read as %v", page)
	}
}
