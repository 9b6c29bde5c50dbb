package trigger

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestParseName(t *testing.T) {
	for in, want := range map[string]Name{
		"a/b":       {Path: "a/b"},
		"a/b/":      {Path: "a/b"},
		"./a":       {Path: "a"},
		"+a":        {Op: event.Write, Path: "a"},
		"=a/":       {Op: event.Meta, Path: "a"},
		"-a":        {Op: event.Gone, Path: "a"},
		"d:a/b/":    {Op: event.Level, Path: "a/b"},
		"r:a":       {Op: event.Tree, Path: "a"},
		"./-a":      {Path: "-a"},
		"./d:a":     {Path: "d:a"},
		"-./-a":     {Op: event.Gone, Path: "-a"},
		"d:./r:a":   {Op: event.Level, Path: "r:a"},
		"--a":       {Op: event.Gone, Path: "-a"},
		"d":         {Path: "d"},
		"x:a":       {Path: "x:a"},
		" a ":       {Path: " a "},
		"#a":        {Path: "#a"},
		"caf\xe9\n": {Path: "caf\xe9\n"},
		"/":         {Path: "/"},
		"":          {},
		"-":         {Op: event.Gone},
		"./":        {},
	} {
		if got := ParseName(in); got != want {
			t.Errorf("%q is read as %+v, want %+v", in, got, want)
		}
	}
}

func TestReadNames(t *testing.T) {
	for _, c := range []struct {
		name, list string
		nul        bool
		want       []string
		fault      string
	}{
		{"nothing", "", false, nil, ""},
		{"nothing, NUL", "", true, nil, ""},
		{"lines", "a\n-b\nd:c/\n", false, []string{"a", "b", "c"}, ""},
		{"the last line has no end", "a\nb", false, []string{"a", "b"}, ""},
		{"empty lines", "\na\n\n\n", false, []string{"a"}, ""},
		{"NUL", "a\x00b\x00", true, []string{"a", "b"}, ""},
		{"NUL, names with line ends", "a\nb\x00\n\x00", true, []string{"a\nb", "\n"}, ""},
		{"a NUL list cut short", "a\x00releases/4", true, nil, `name 2 ("releases/4") has no NUL after it: the list was cut short`},
		{"lines read as NUL", "a\nb\n", true, nil, "is not NUL-separated (then leave out -0)"},
	} {
		names, err := ReadNames(iotest.OneByteReader(strings.NewReader(c.list)), c.nul)
		var got []string
		for _, n := range names {
			got = append(got, n.Path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		checkFault(t, c.name, err, c.fault)
	}
}

func checkFault(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: got error %v, want %q in it", name, err, want)
	}
}

func TestReadNamesOfAnUnreadableList(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is a folder
	if _, err := ReadNames(f, false); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a folder: %v", err)
	}
	broken := errors.New("the disk is broken")
	if names, err := ReadNames(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), false); !errors.Is(err, broken) || names != nil {
		t.Errorf("broken half way: %v, %v", names, err)
	}
}

// An endless list ends in an error, not in all memory.
func TestReadNamesIsBounded(t *testing.T) {
	endless := iotest.DataErrReader(strings.NewReader(strings.Repeat("x", 1000)))
	for _, nul := range []bool{false, true} {
		_, err := readNames(endless, nul, 100)
		checkFault(t, "one name", err, "over 100 bytes; announce directories instead")
		_, err = readNames(strings.NewReader(strings.Repeat("name\n\x00", 1000)), nul, 100)
		checkFault(t, "many names", err, "over 100 bytes; announce directories instead")
		_, err = ReadNames(io.MultiReader(strings.NewReader("a\n\x00"), strings.NewReader(strings.Repeat("x", 1<<20))), nul)
		checkFault(t, "an endless name", err, "name 2 (\"")
		checkFault(t, "an endless name", err, "…) is longer than 65536 bytes")
	}
}

// module makes a small module, and beside it a secret that no name may reach.
func module(t *testing.T) *os.Root {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "module")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "releases/43"), 0o750))
	must(os.Mkdir(filepath.Join(top, "outside"), 0o755))
	for _, name := range []string{"module/file", "module/releases/43/README", "module/one", "outside/secret", "module/-rf", "module/a: b", "module/caf\xe9\n"} {
		must(os.WriteFile(filepath.Join(top, name), []byte("hello"), 0o644))
	}
	must(os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "two")))
	must(os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "releases/three")))
	must(os.Link(filepath.Join(dir, "file"), filepath.Join(dir, "file too")))
	must(os.Symlink("releases", filepath.Join(dir, "current")))
	must(os.Symlink("../outside", filepath.Join(dir, "out")))
	must(os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	must(syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	root, err := os.OpenRoot(dir)
	must(err)
	t.Cleanup(func() { must(root.Close()) })
	return root
}

func parseAll(list ...string) []Name {
	names := make([]Name, len(list))
	for i, s := range list {
		names[i] = ParseName(s)
	}
	return names
}

func TestResolveRefuses(t *testing.T) {
	root := module(t)
	for _, c := range []struct {
		name  string
		paths []string
		fault string
		hint  string
	}{
		{"absolute", []string{"/etc/passwd"}, `path "/etc/passwd": must be relative to the module`, "relative to the module"},
		{"root", []string{"/"}, "must be relative", "relative to the module"},
		{"dot dot", []string{"releases/../file"}, `has a component ".."`, "relative to the module"},
		{"dot", []string{"."}, `has a component "."`, "relative to the module"},
		{"dot inside", []string{"releases/./43"}, `has a component "."`, "relative to the module"},
		{"empty", []string{""}, `path "": is empty`, "relative to the module"},
		{"an op alone", []string{"-"}, `path "": is empty`, "relative to the module"},
		{"two slashes", []string{"a: b//c"}, `path "a: b//c": has an empty component`, "relative to the module"},
		{"over-long", []string{strings.Repeat("x/", 2047) + "xy"}, "4096 bytes long, at most 4095", "relative to the module"},
		{"over-long component", []string{strings.Repeat("x", 256)}, "a component of 256 bytes, at most 255", "relative to the module"},
		{"NUL", []string{"file\x00releases"}, "holds a NUL byte", "read it with -0"},
		{"ours", []string{".mirrorbus/head"}, "belongs to mirrorbus", "relative to the module"},
		{"twice", []string{"file", "releases/43", "./file"}, `path "file": stands twice`, "name it once"},
		{"twice with two ops", []string{"=file", "+file"}, `path "file": stands twice`, "name it once"},
		{"not there", []string{"releases/44"}, `path "releases/44": does not exist in the module`, "announce -releases/44 if it was removed"},
		{"below what is not there", []string{"nowhere/a/b"}, "does not exist in the module", "announce -nowhere/a/b"},
		{"below a file", []string{"file/a"}, "does not exist in the module", "announce -file/a"},
		{"gone and there", []string{"-file"}, "is said to be gone but is there", "leave out the minus sign"},
		{"gone and a dangling link", []string{"-dangling"}, "is said to be gone but is there", "leave out the minus sign"},
		{"through a link", []string{"current/43/README"}, `its parent "current" is a symbolic link`, "its real directory"},
		{"through a link that leaves the module", []string{"out/secret"}, `its parent "out" is a symbolic link`, "its real directory"},
		{"deep through a link that leaves the module", []string{"out/a/b/c"}, `its parent "out" is a symbolic link`, "its real directory"},
		{"gone through a link", []string{"-out/gone"}, `its parent "out" is a symbolic link`, "its real directory"},
		{"level of a file", []string{"d:file"}, "is not a directory", "without the d: prefix"},
		{"tree of a link to a directory", []string{"r:current"}, "is not a directory", "without the r: prefix"},
		{"pipe", []string{"pipe"}, "is a device, pipe or socket", "leave it out"},
	} {
		set, err := Resolve(root, parseAll(c.paths...), nil)
		checkFault(t, c.name, err, c.fault)
		p, ok := asPathError(err)
		if !ok || !strings.Contains(p.Hint, c.hint) || set != nil {
			t.Errorf("%s: set %v, error %+v; want the hint %q", c.name, set, p, c.hint)
		}
	}
	if _, err := Resolve(root, []Name{{Op: event.Renamed, Path: "file", From: "old"}}, nil); err == nil {
		t.Error("a renamed file is taken")
	}
}

func TestResolveWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may look everywhere")
	}
	root := module(t)
	if err := os.Chmod(filepath.Join(root.Name(), "releases"), 0); err != nil {
		t.Fatal(err)
	}
	_, err := Resolve(root, parseAll("releases/43/README"), nil)
	if p, ok := asPathError(err); !ok || !errors.Is(err, os.ErrPermission) || !strings.Contains(p.Hint, "a user who may read the module") {
		t.Errorf("got %v", err)
	}
}

// Records say what lstat says, sorted by path whatever the order of the names.
func TestResolve(t *testing.T) {
	root := module(t)
	set, err := Resolve(root, parseAll("releases/", "+releases/43", "=file", "-gone/with/all", "dangling", "./-rf", "a: b", "caf\xe9\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	type said struct {
		op   event.Op
		mode uint32
		size int64
		path string
	}
	var got []said
	for _, r := range set {
		got = append(got, said{r.Op, r.Mode, r.Size, r.Path})
		if fi, err := root.Lstat(r.Path); err == nil && event.StampOf(fi.ModTime()) != r.MTime {
			t.Errorf("%q: time %s, want %v", r.Path, r.MTime, fi.ModTime())
		}
	}
	want := []said{
		{event.Write, 0o100644, 5, "-rf"}, {event.Write, 0o100644, 5, "a: b"}, {event.Write, 0o100644, 5, "caf\xe9\n"},
		{event.Write, 0o120777, 7, "dangling"}, {event.Meta, 0o100644, 5, "file"}, {event.Gone, 0, 0, "gone"},
		{event.Tree, 0o40750, 0, "releases"}, {event.Write, 0o40750, 0, "releases/43"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(said{})); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// Names of one inode are told to be so, those of them that are in the set; one name alone is a file like any other.
func TestResolveLinks(t *testing.T) {
	root := module(t)
	for _, c := range []struct {
		names []string
		want  map[string]uint64
	}{
		{[]string{"one"}, map[string]uint64{"one": 0}},
		{[]string{"two", "one"}, map[string]uint64{"one": 1, "two": 1}},
		{[]string{"releases/three", "file", "one"}, map[string]uint64{"file": 0, "one": 1, "releases/three": 1}},
		{[]string{"two", "one", "file too", "=file", "dangling"}, map[string]uint64{"dangling": 0, "file": 1, "file too": 1, "one": 2, "two": 2}},
	} {
		got := map[string]uint64{}
		set, err := Resolve(root, parseAll(c.names...), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set {
			got[r.Path] = r.Link
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: want (-), got (+):\n%s", c.names, diff)
		}
		slices.Reverse(c.names)
		again, err := Resolve(root, parseAll(c.names...), nil)
		if err != nil || again.Digest() != set.Digest() {
			t.Errorf("%q: the order of the names changes the set (%v)", c.names, err)
		}
	}
}

func FuzzReadNames(f *testing.F) {
	for _, list := range []string{"", "a\n-b\nd:c/\n./-x", "a\x00b\nc\x00", "\x00\n\x00", "r:./d:/\n", "+\n=\n-\n"} {
		f.Add([]byte(list), true)
		f.Add([]byte(list), false)
	}
	f.Fuzz(func(t *testing.T, list []byte, nul bool) {
		names, err := ReadNames(strings.NewReader(string(list)), nul)
		end := "\n"
		if nul {
			end = "\x00"
		}
		if cut := nul && len(list) > 0 && list[len(list)-1] != 0; (err != nil) != cut {
			t.Fatalf("%q, cut short %v: %v", list, cut, err)
		}
		if err != nil {
			return
		}
		parts := slices.DeleteFunc(strings.Split(string(list), end), func(s string) bool { return s == "" })
		if len(parts) != len(names) {
			t.Fatalf("%q: %d names, want %d", list, len(names), len(parts))
		}
		for i, n := range names {
			if !strings.Contains(parts[i], n.Path) {
				t.Errorf("%q is read as %+v", parts[i], n)
			}
			if n.Op == 0 && event.CheckPath(n.Path) == nil && ParseName("./"+n.Path) != n {
				t.Errorf("./%s is read as %+v", n.Path, ParseName("./"+n.Path))
			}
		}
	})
}

func TestGoneNamesTheTopmostMissingDirectory(t *testing.T) {
	dir := t.TempDir()
	testenv.WriteTree(t, dir, testenv.File("here/kept", "x"), testenv.File("file", "x"))
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	}()
	var names []Name
	for _, s := range []string{"-gone/deep/a", "-gone/deep/b", "-here/lost", "-file/was/a/directory"} {
		names = append(names, ParseName(s))
	}
	set, err := Resolve(root, names, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range set {
		got = append(got, string(rune(r.Op))+r.Path)
	}
	if want := []string{"-file/was/a/directory", "-gone", "-here/lost"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
