package exec_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/listener/exec"
	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

func TestCommandGetsPathsAndStage(t *testing.T) {
	dest := t.TempDir()
	r := &exec.Runner{
		Argv:   []string{"sh", "-c", `cat >got; echo "$MIRRORBUS_MODULE $MIRRORBUS_STAGE $MIRRORBUS_MODE $MIRRORBUS_UPSTREAM $MIRRORBUS_MAX_DELETE" >said`},
		Module: "fedora", Upstream: "rsync://up/fedora", Dest: dest,
	}
	if _, err := r.Run(t.Context(), "metadata", rsync.Job{Mode: rsync.Content, Paths: []string{"a\nb", "-c \xff"}, MaxDelete: 5}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"got": "a\nb\x00-c \xff\x00", "said": "fedora metadata content rsync://up/fedora 5\n"} {
		if got, err := os.ReadFile(filepath.Join(dest, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, want %q: %v", name, got, want, err)
		}
	}
}

func TestStatusTellsWhatToDo(t *testing.T) {
	r := &exec.Runner{Argv: []string{"sh", "-c", "exit 75"}, Dest: t.TempDir()}
	_, err := r.Run(t.Context(), "content", rsync.Job{Mode: rsync.Content, Paths: []string{"a"}})
	var exit *hook.ExitError
	if !errors.As(err, &exit) || exit.Status != hook.TryAgain {
		t.Errorf("%v", err)
	}
}

func TestRenameStaysInside(t *testing.T) {
	dest := t.TempDir()
	r := &exec.Runner{Dest: dest}
	if err := os.WriteFile(filepath.Join(dest, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Rename("a", "../b"); err == nil {
		t.Error("renamed out of the module")
	}
	if err := r.Rename("a", "b"); err != nil {
		t.Error(err)
	}
	if err := r.Rename("missing", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := r.Rename("b", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
}
