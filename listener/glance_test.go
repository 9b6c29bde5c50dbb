package listener

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A glance sees what lstat sees, whatever stands at a path and above it.
func TestAGlanceSeesWhatIsThere(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.MkdirAll(at("d/sub"), 0o755), os.WriteFile(at("d/f"), []byte("x"), 0o640), os.Symlink("d", at("link")), os.Symlink("nowhere", at("dangling")),
		unix.Mkfifo(at("fifo"), 0o600), os.Chmod(at("d/sub"), os.ModeSticky|0o777), os.WriteFile(filepath.Join(elsewhere, "f"), nil, 0o644),
		os.Symlink(elsewhere, at("big")), os.Symlink(elsewhere, at("out")), os.WriteFile(at("top"), []byte("xyz"), 0o755), os.Chmod(at("top"), os.ModeSetuid|0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	tr, err := openTree(dir, []string{"big"})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close() //nolint:errcheck // only looked at
	g := tr.glance()
	defer g.close()
	for _, name := range []string{"d/f", "d/sub", "d", "top", "d/none", "none/none", "top/below", "link", "link/f", "dangling", "fifo", "big", "big/f", "big/none", "out/f", "d/f"} {
		want, wantErr := tr.lstat(name)
		got, err := g.lstat(name)
		if (err == nil) != (wantErr == nil) || (got == nil) != (want == nil) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, err, want, wantErr)
			continue
		}
		if want != nil && (got.Mode() != want.Mode() || got.Size() != want.Size() || !got.ModTime().Equal(want.ModTime()) || got.IsDir() != want.IsDir()) {
			t.Errorf("%s: %v %d %v; want %v %d %v", name, got.Mode(), got.Size(), got.ModTime(), want.Mode(), want.Size(), want.ModTime())
		}
	}
}
