package testenv_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestDiffNamesEachDifference(t *testing.T) {
	a, b, at := t.TempDir(), t.TempDir(), time.Unix(1_700_000_000, 5)
	testenv.WriteTree(t, a, testenv.File("same", "x").At(at), testenv.File("gone", "x"), testenv.File("mode", "x").At(at), testenv.File("text", "one").At(at),
		testenv.File("time", "x").At(at), testenv.Symlink("link", "a"), testenv.File("h1", "h").At(at), testenv.HardLink("h2", "h1"), testenv.File("skip/me", "x"))
	testenv.WriteTree(t, b, testenv.File("same", "x").At(at), testenv.File("new", "x"), testenv.File("mode", "x").Perm(0o600).At(at), testenv.File("text", "two").At(at),
		testenv.File("time", "x").At(at.Add(1)), testenv.Symlink("link", "b"), testenv.File("h1", "h").At(at), testenv.File("h2", "h").At(at))
	want := []string{
		`"gone": only in ` + a, `"h1": hard link of h1, not `, `"h2": hard link of h1, not `, `"link": target a, not b`, `"mode": mode -rw-r--r--, not -rw-------`,
		`"new": only in ` + b, `"text": content "one"…, not "two"…`, `"time": time 2023-11-14T22:13:20.000000005Z, not 2023-11-14T22:13:20.000000006Z`,
	}
	if d := cmp.Diff(want, testenv.Diff(t, a, b, "skip")); d != "" {
		t.Error(d)
	}
}

func TestRsyncdServesStopsAndStartsAgain(t *testing.T) {
	rsync, src := testenv.Need(t, "rsync"), t.TempDir()
	testenv.WriteTree(t, src, testenv.File("d/f", "content"))
	d := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "pub", Path: src, Secrets: map[string]string{"me": "secret"}})
	list := func() error {
		cmd := exec.Command(rsync, "-r", "--list-only", strings.Replace(d.URL("pub", ""), "//", "//me@", 1))
		cmd.Env = append(os.Environ(), "RSYNC_PASSWORD=secret")
		out, err := cmd.CombinedOutput()
		if err == nil && !strings.Contains(string(out), "d/f") {
			err = errors.New(string(out))
		}
		return err
	}
	if err := list(); err != nil {
		t.Fatal(err, d.Log())
	}
	d.Stop()
	if err := list(); err == nil {
		t.Fatal("still answers after Stop")
	}
	d.Start()
	if err := list(); err != nil {
		t.Fatal(err, d.Log())
	}
}

func TestSSHDRunsCommands(t *testing.T) {
	s := testenv.StartSSHD(t, "")
	argv := append(s.Shell(), "127.0.0.1", "echo", "hello")
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("%q %v\n%s", out, err, s.Log())
	}
	f := testenv.StartSSHD(t, "echo forced")
	argv = append(f.Shell(), "127.0.0.1", "echo", "hello")
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil || string(out) != "forced\n" {
		t.Fatalf("%q %v\n%s", out, err, f.Log())
	}
}

func TestWriteTreeSetsModesLast(t *testing.T) {
	dir := t.TempDir()
	testenv.WriteTree(t, dir, testenv.Dir("d", 0o750), testenv.File("d/f", "x").Perm(0o400))
	for path, want := range map[string]os.FileMode{"d": 0o750, "d/f": 0o400} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, want)
		}
	}
}

// No port is given out twice, and one on which somebody listens is not given out.
func TestFreePort(t *testing.T) {
	seen := map[int]bool{}
	for range 300 {
		port := testenv.FreePort(t)
		if seen[port] {
			t.Fatalf("port %d was given out twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
