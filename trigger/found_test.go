package trigger

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// asFound resolves names that may have changed, where no manifest tells anything, and writes the records as op and path.
func asFound(t *testing.T, root string, names ...Name) (said string, leftOut int) {
	t.Helper()
	p := &Publisher{Modules: []ModuleConfig{{Name: "m", Path: config.Path(root), PerDirectory: 1000, MaxPaths: 1000}}}
	r := NewRequest("m", names)
	r.AsFound = true
	found, err := p.resolve(t.Context(), p.Modules[0], r)
	if err != nil {
		t.Fatal(err)
	}
	if found.set == nil {
		t.Fatal("the set is said to be unknown")
	}
	var all []string
	for _, rec := range found.set {
		s := string(rune(rec.Op)) + rec.Path
		if rec.From != "" {
			s += "<" + rec.From
		}
		all = append(all, s)
	}
	return strings.Join(all, " "), found.leftOut
}

func TestAsFound(t *testing.T) {
	renamed := func(to, from string) Name { return Name{Op: event.Renamed, Path: to, From: from} }
	for _, c := range []struct {
		name    string
		names   []Name
		want    string
		leftOut int
	}{
		{"there", parseAll("file", "releases/43/README"), "+file +releases/43/README", 0},
		{"a directory is one inode", parseAll("releases"), "+releases", 0},
		{"a directory as a whole", parseAll("r:releases", "d:releases/43"), "rreleases dreleases/43", 0},
		{"metadata", parseAll("=file", "=releases"), "=file =releases", 0},
		{"gone", parseAll("nothing"), "-nothing", 0},
		{"said to be gone, and there", parseAll("-file"), "+file", 0},
		{"gone with what was above", parseAll("x/y/z", "x/y", "x/w", "-x/q/r"), "-x", 0},
		{"one that is gone in one that is not", parseAll("releases/44/a", "releases/44/b", "releases/43"), "+releases/43 -releases/44", 0},
		{"said to be a directory", parseAll("r:file", "d:one"), "+file +one", 0},
		{"below what is a file now", parseAll("file/a/b", "file/c"), "+file", 0},
		{"twice", parseAll("file", "+file", "=file"), "+file", 0},
		{"twice, once wider", parseAll("releases", "r:releases", "=releases"), "rreleases", 0},
		{"through a link", parseAll("current/43/README", "out/secret"), "", 2},
		{"the link itself", parseAll("current"), "+current", 0},
		{"a pipe", parseAll("pipe", "file"), "+file", 1},
		{"not to be listed", []Name{{Path: ".mirrorbus/head"}, {Path: strings.Repeat("x", 256)}, {Path: "/etc"}, {Path: "../x"}, {Path: ""}, {Path: "a\x00b"}, {Path: "file"}}, "+file", 6},
		{"odd names", parseAll("./-rf", "a: b", "caf\xe9\n"), "+-rf +a: b +caf\xe9\n", 0},
		{"renamed", []Name{renamed("releases/43", "releases/42")}, ">releases/43<releases/42", 0},
		{"renamed, and the old name", []Name{{Path: "releases/42"}, {Path: "releases/42/x"}, renamed("releases/43", "releases/42"), {Path: "releases/43/README"}},
			">releases/43<releases/42 +releases/43/README", 0},
		{"renamed, the old name is there again", []Name{renamed("releases/43", "file")}, "+file rreleases/43", 0},
		{"renamed, and gone since", []Name{renamed("releases/44", "releases/42")}, "-releases/42 -releases/44", 0},
		{"renamed, and no directory", []Name{renamed("file", "old")}, "+file -old", 0},
		{"renamed into itself", []Name{renamed("releases/43", "releases")}, "rreleases rreleases/43", 0},
		{"renamed from where no name can be", []Name{renamed("releases/43", "../x")}, "rreleases/43", 1},
		{"renamed from one name twice", []Name{renamed("releases", "old"), renamed("releases/43", "old")}, ">releases<old rreleases/43", 0},
		{"nothing", nil, "", 0},
	} {
		if got, n := asFound(t, module(t).Name(), c.names...); got != c.want || n != c.leftOut {
			t.Errorf("%s: %q and %d left out, want %q and %d", c.name, got, n, c.want, c.leftOut)
		}
	}
}

func TestAsFoundWhatVanishes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "index.xml")
	if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()                                                  //nolint:errcheck // only read
	sums := func(string) bool { return os.Remove(path) == nil || true } // it goes when it is about to be read
	p := &Publisher{}
	records, _, err := p.found(t.Context(), "m", newResolver(root, sums, 1), []Name{{Path: "index.xml"}})
	if err != nil || len(records) != 1 || records[0].Op != event.Gone {
		t.Errorf("%+v, %v", records, err)
	}
}

// What is found gone and there within one request is looked at once more.
func TestAsFoundAgrees(t *testing.T) {
	root := module(t)
	for name, c := range map[string]struct {
		records []event.Record
		gone    []string
		want    string
	}{
		"a directory that came back": {[]event.Record{{Op: event.Write, Path: "releases/43/README"}}, []string{"releases", "x"}, "r releases, + releases/43/README; -x"},
		"one that went":              {[]event.Record{{Op: event.Write, Path: "x"}, {Op: event.Write, Path: "x/y"}, {Op: event.Write, Path: "z"}}, []string{"x"}, "+ z; -x"},
		"a file in its place":        {[]event.Record{{Op: event.Write, Path: "file/x"}}, []string{"file"}, "+ file; "},
		"one in the other":           {nil, []string{"a/b/c", "a", "a/b"}, "; -a"},
	} {
		f := finder{resolver: newResolver(root, nil, 0), records: c.records, gone: map[string]bool{}}
		for _, path := range c.gone {
			f.gone[path] = true
		}
		f.agree()
		var there, gone []string
		for _, r := range f.records {
			there = append(there, string(rune(r.Op))+" "+r.Path)
		}
		for path := range f.gone {
			gone = append(gone, "-"+path)
		}
		slices.SortFunc(there, func(a, b string) int { return strings.Compare(a[2:], b[2:]) })
		slices.Sort(gone)
		if got := strings.Join(there, ", ") + "; " + strings.Join(gone, ", "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestAsFoundRefuses(t *testing.T) {
	p := &Publisher{Modules: []ModuleConfig{{Name: "m", Path: config.Path(t.TempDir())}}}
	r := NewRequest("m", parseAll("a"))
	r.AsFound, r.Flip = true, true
	if _, err := p.resolve(t.Context(), p.Modules[0], r); fault.StatusOf(err) != fault.Usage {
		t.Errorf("a flip: %v", err)
	}
	p.Modules[0].Path += "/none"
	r.Flip = false
	if _, err := p.resolve(t.Context(), p.Modules[0], r); fault.StatusOf(err) != fault.Config || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no tree: %v", err)
	}
}

func TestFresh(t *testing.T) {
	f := newFresh()
	for _, r := range []event.Record{{Op: event.Write, Path: "a/b"}, {Op: event.Level, Path: "d"}, {Op: event.Renamed, Path: "n", From: "o/p"}} {
		f.add(r)
	}
	for path, want := range map[string]bool{"a": true, "a/b": true, "a/c": false, "d/x": true, "d/x/y": true, "n/x": true, "o/p": true, "o": true, "o/q": false, "z": false} {
		if f.mention(path) != want {
			t.Errorf("%s: %t", path, !want)
		}
	}
}
