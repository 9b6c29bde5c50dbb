package trigger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// versionsOf resolves names and writes of each record op, path and, if it states one, size.
func versionsOf(t *testing.T, root string, names ...Name) string {
	t.Helper()
	p := &Publisher{Modules: []ModuleConfig{{Name: "m", Path: config.Path(root), Last: []string{"*.xml"}, PerDirectory: 1000, MaxPaths: 1000}}}
	r := NewRequest("m", names)
	r.AsFound = true
	found, err := p.resolve(t.Context(), p.Modules[0], r)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, rec := range found.set {
		s := fmt.Sprintf("%c%s", rec.Op, rec.Path)
		if v := versionIn(rec); v != nil {
			s += fmt.Sprintf(":%d", v.Size)
		}
		if !rec.Sum.IsZero() {
			s += "!"
		}
		all = append(all, s)
	}
	if found.ahead {
		all = append(all, "ahead")
	}
	return strings.Join(all, " ")
}

// An index is announced in the version that was seen, whatever is there by now; other names are announced as they are. Where an index is not that version any more, what
// was there when it was seen is not announced as gone.
func TestAsSeen(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"i.xml": "12345", "c": "123", "e": "1", "d/c": "1"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("e", filepath.Join(dir, "link.xml")); err != nil {
		t.Fatal(err)
	}
	now := func(path string) *Version {
		fi, err := os.Lstat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		return VersionOf(fi)
	}
	old := &Version{Mode: 0o100644, Size: 77, Sec: 5, Nsec: 6}
	other := func(path string) *Version { // of the same size
		v := *now(path)
		v.Nsec ^= 1
		return &v
	}
	chmod := *now("i.xml")
	chmod.Mode = 0o100600
	gone := Name{Op: event.Gone, Path: "gone/said"}
	for _, c := range []struct {
		name  string
		names []Name
		want  string
	}{
		{"as it was seen", []Name{{Path: "i.xml", As: now("i.xml")}}, "+i.xml:5!"},
		{"with other permissions", []Name{{Path: "i.xml", As: &chmod}}, "+i.xml:5!"},
		{"replaced", []Name{{Path: "i.xml", As: old}}, "+i.xml:77 ahead"},
		{"by one of its size", []Name{{Path: "i.xml", As: other("i.xml")}}, "+i.xml:5 ahead"},
		{"gone", []Name{{Path: "j.xml", As: old}}, "+j.xml:77 ahead"},
		{"gone with its directory", []Name{{Path: "gone/j.xml", As: old}}, "+gone/j.xml:77 ahead"},
		{"gone with its directory, which was gone", []Name{{Op: event.Gone, Path: "gone"}, {Path: "gone/j.xml", As: old}}, "-gone ahead"},
		{"a link in its place", []Name{{Path: "link.xml", As: old}}, "+link.xml:77 ahead"},
		{"a directory in its place", []Name{{Path: "d", As: old}, {Path: "d/c"}}, "+d +d/c:1"},
		{"below what is a file", []Name{{Path: "c/j.xml", As: old}}, "+c:3 ahead"},
		{"no index", []Name{{Path: "c", As: old}}, "+c:3"},
		{"what is gone, and an index as it was", []Name{{Path: "i.xml", As: now("i.xml")}, {Path: "new", As: old}, {Path: "dir"}, gone}, "-dir -gone +i.xml:5! -new"},
		{"what is gone, and an index replaced", []Name{{Path: "i.xml", As: old}, {Path: "new", As: old}, {Path: "dir"}, gone}, "-gone/said +i.xml:77 +new:77 ahead"},
		{"a directory that was renamed and is gone", []Name{{Path: "i.xml", As: old}, {Op: event.Renamed, Path: "to", From: "from"}}, "-from +i.xml:77 ahead"},
	} {
		if got := versionsOf(t, dir, c.names...); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// An index that is replaced while it is read is announced as it was seen before.
func TestAsSeenWhileItIsRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "i.xml")
	if err := os.WriteFile(path, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	fi, err := root.Lstat("i.xml")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	sums := func(string) bool {
		if asked++; asked == 1 { // it was looked at, and is about to be read
			err = os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))
		}
		return true
	}
	look := newResolver(root, sums, 1)
	records, _, foundErr := (&Publisher{}).found(t.Context(), "m", look, []Name{{Path: "i.xml", As: VersionOf(fi)}})
	if err != nil || foundErr != nil || asked == 0 || !look.ahead || len(records) != 1 || !VersionOf(fi).Same(versionIn(records[0])) || !records[0].Sum.IsZero() {
		t.Errorf("%+v, asked %d times, %v, %v", records, asked, err, foundErr)
	}
}

func TestVersionsThatMakeNoSense(t *testing.T) {
	p := &Publisher{Modules: []ModuleConfig{{Name: "m", Path: config.Path(t.TempDir())}}}
	good := Version{Mode: 0o100644, Size: 1, Sec: 1}
	for name, c := range map[string]struct {
		n Name
		v Version
	}{
		"a directory":     {Name{Path: "a"}, Version{Mode: 0o040755}},
		"a large mode":    {Name{Path: "a"}, Version{Mode: 1<<31 | 0o100644}},
		"less than empty": {Name{Path: "a"}, Version{Mode: 0o100644, Size: -1}},
		"nanoseconds":     {Name{Path: "a"}, Version{Mode: 0o100644, Nsec: 1_000_000_000}},
		"of what is gone": {Name{Op: event.Gone, Path: "a"}, good},
	} {
		c.n.As = &c.v
		r := NewRequest("m", []Name{c.n})
		r.AsFound = true
		if _, err := p.resolve(t.Context(), p.Modules[0], r); fault.StatusOf(err) != fault.Usage || !strings.Contains(err.Error(), `"a"`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.resolve(t.Context(), p.Modules[0], NewRequest("m", []Name{{Path: "a", As: &good}})); fault.StatusOf(err) != fault.Usage {
		t.Errorf("not as found: %v", err)
	}
}
