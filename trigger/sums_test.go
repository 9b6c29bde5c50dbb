package trigger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
)

func isXML(path string) bool { return strings.HasSuffix(path, ".xml") }

// What is in a written index is told, and what is in anything else is not read.
func TestIndexesAreSummed(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large.xml")
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "a.xml"), []byte("a"), 0o600), os.WriteFile(filepath.Join(dir, "a.rpm"), []byte("a"), 0o600),
		os.WriteFile(large, nil, 0o600), os.Truncate(large, MaxSummed+1), os.Symlink("a.xml", filepath.Join(dir, "link.xml")), os.Mkdir(filepath.Join(dir, "dir.xml"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	set, err := Resolve(root, parseAll("a.xml", "a.rpm", "large.xml", "link.xml", "dir.xml", "-gone.xml"), isXML)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set {
		want := event.Digest{}
		if r.Path == "a.xml" {
			want = event.Sum([]byte("a"))
		}
		if r.Sum != want {
			t.Errorf("%s: sum %s, want %s", r.Path, r.Sum, want)
		}
	}
	if set, err = Resolve(root, []Name{{Op: event.Meta, Path: "a.xml"}}, isXML); err != nil || !set[0].Sum.IsZero() {
		t.Errorf("a change of the mode alone: %v, %v", set, err)
	}
}

// A pipe in the place of an index is refused as ever, and does not hold anybody up.
func TestAPipeIsNotSummed(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "a.xml"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	if _, err := Resolve(root, parseAll("a.xml"), isXML); err == nil || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("error is %v", err)
	}
	if _, err := digest(root, "a.xml"); err != nil {
		t.Errorf("one that has just become a pipe: %v", err)
	}
}
