package statelock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

const childEnv = "MIRRORBUS_TEST_STATELOCK"

// TestMain is a holder when a test starts this program as one: it takes the folder, says so, does what it reads line by line, and ends.
func TestMain(m *testing.M) {
	dir := os.Getenv(childEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := hold(dir); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func hold(dir string) error {
	h, err := statelock.Lock(context.Background(), dir, statelock.Options{Wait: 20 * time.Second})
	if err != nil {
		return err
	}
	fmt.Println("locked, unclean:", h.Unclean())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "claim":
			err = h.Claim()
		case "release":
			err = h.Release()
		case "abandon":
			err = h.Abandon()
		}
		if err != nil {
			return err
		}
		fmt.Println("did", in.Text())
	}
	return nil
}

// A holder is another process that has the folder, or waits for it.
type holder struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, dir string) *holder {
	t.Helper()
	p := &holder{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+dir)
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := p.cmd.StdinPipe()
	check(t, err)
	out, err := p.cmd.StdoutPipe()
	check(t, err)
	p.in, p.out = in, bufio.NewScanner(out)
	check(t, p.cmd.Start())
	t.Cleanup(p.kill)
	return p
}

// says waits for the next line of the other process.
func (p *holder) says(want string) {
	p.t.Helper()
	if !p.out.Scan() || p.out.Text() != want {
		p.t.Fatalf("the other process said %q, %v; want %q", p.out.Text(), p.out.Err(), want)
	}
}

func (p *holder) do(verb string) {
	p.t.Helper()
	_, err := fmt.Fprintln(p.in, verb)
	check(p.t, err)
	p.says("did " + verb)
}

func (p *holder) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	p.cmd.Wait()         //nolint:errcheck // likewise
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lock(t *testing.T, dir string, o statelock.Options) *statelock.Held {
	t.Helper()
	h, err := statelock.Lock(t.Context(), dir, o)
	check(t, err)
	return h
}

func text(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, statelock.FileName))
	check(t, err)
	return string(b)
}

// The error names the other process from the moment it has the folder, and where it is.
func TestInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made by lock")
	p := start(t, dir)
	p.says("locked, unclean: false")
	refused := func(who string) {
		t.Helper()
		_, err := statelock.Lock(t.Context(), dir, statelock.Options{Hint: "stop it"})
		want := fmt.Sprintf("state folder %s: in use by another process (process %d%s)", dir, p.cmd.Process.Pid, who)
		if !errors.Is(err, statelock.ErrInUse) || err.Error() != want || fault.HintOf(err) != "stop it" || fault.StatusOf(err) != fault.Unavailable {
			t.Errorf("got %v, hint %q, status %d; want %s", err, fault.HintOf(err), fault.StatusOf(err), want)
		}
	}
	refused(", starting")
	p.do("claim")
	refused("")
	p.do("release")
	h := lock(t, dir, statelock.Options{})
	if h.Unclean() {
		t.Error("unclean after a release")
	}
	check(t, h.Release())
}

// Who has the folder for a moment is waited for: here one after the other, all of them at once.
func TestWait(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	p.says("locked, unclean: false")
	q := start(t, dir) // waits for p, or for those below
	var inside atomic.Int32
	var all errgroup.Group
	for range 3 {
		all.Go(func() error {
			h, err := statelock.Lock(t.Context(), dir, statelock.Options{Wait: 20 * time.Second})
			if err != nil {
				return err
			}
			if n := inside.Add(1); n != 1 {
				t.Errorf("%d have it", n)
			}
			err = h.Claim()
			inside.Add(-1)
			return errors.Join(err, h.Release())
		})
	}
	p.do("claim")
	p.do("release")
	q.says("locked, unclean: false")
	q.do("release")
	check(t, all.Wait())
}

func TestWaitEnds(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir)
	p.says("locked, unclean: false")
	p.do("claim")
	begin := time.Now()
	_, err := statelock.Lock(t.Context(), dir, statelock.Options{Wait: 300 * time.Millisecond})
	if waited := time.Since(begin); !errors.Is(err, statelock.ErrInUse) || waited < 300*time.Millisecond {
		t.Errorf("after %v: %v", waited, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = statelock.Lock(ctx, dir, statelock.Options{Wait: time.Hour})
	if !errors.Is(err, statelock.ErrInUse) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprint("process ", p.cmd.Process.Pid)) {
		t.Errorf("got %v", err)
	}
}

// A holder that has no name yet gets the time to write it; one that cannot is told of as such.
func TestHolderWithoutAName(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, statelock.FileName))
	check(t, err)
	defer f.Close() //nolint:errcheck // closed below
	check(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if _, err := statelock.Lock(t.Context(), dir, statelock.Options{}); !errors.Is(err, statelock.ErrInUse) || !strings.Contains(err.Error(), "it is starting") {
		t.Errorf("got %v", err)
	}
	refused := make(chan error)
	go func() {
		_, err := statelock.Lock(t.Context(), dir, statelock.Options{})
		refused <- err
	}()
	_, err = f.WriteString("process 7\n")
	check(t, err)
	if err := <-refused; !errors.Is(err, statelock.ErrInUse) || !strings.Contains(err.Error(), "(process 7)") {
		t.Errorf("got %v", err)
	}
	check(t, f.Close())
}

// What a killed holder leaves is noticed until somebody has released the folder in order.
func TestUnclean(t *testing.T) {
	for _, c := range []struct {
		name string
		do   []string
		want bool
	}{
		{"released", []string{"claim", "release"}, false},
		{"killed", []string{"claim"}, true},
		{"killed at its start", nil, true},
		{"abandoned", []string{"claim", "abandon"}, true},
		{"abandoned at its start", []string{"abandon"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			p := start(t, dir)
			p.says("locked, unclean: false")
			for _, verb := range c.do {
				p.do(verb)
			}
			p.kill()
			h := lock(t, dir, statelock.Options{})
			if h.Unclean() != c.want {
				t.Errorf("unclean %v, want %v", h.Unclean(), c.want)
			}
			check(t, h.Abandon()) // changes nothing
			h = lock(t, dir, statelock.Options{})
			if h.Unclean() != c.want {
				t.Errorf("after an abandoned start: unclean %v, want %v", h.Unclean(), c.want)
			}
			check(t, h.Claim())
			if got, want := text(t, dir), fmt.Sprintf("process %d\n", os.Getpid()); got != want {
				t.Errorf("the file says %q, want %q", got, want)
			}
			check(t, h.Release())
			if got := text(t, dir); got != "" {
				t.Errorf("after a release the file says %q", got)
			}
		})
	}
}

// A full disk takes the name, not the lock.
func TestFullDisk(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() { check(t, unix.Unmount(dir, 0)) })
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the disk is not full:", err)
	}
	h := lock(t, dir, statelock.Options{})
	check(t, h.Claim())
	if _, err := statelock.Lock(t.Context(), dir, statelock.Options{}); !errors.Is(err, statelock.ErrInUse) {
		t.Errorf("got %v", err)
	}
	check(t, h.Release())
}

func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	if _, err := statelock.Lock(t.Context(), filepath.Join(file, "state"), statelock.Options{}); err == nil || errors.Is(err, statelock.ErrInUse) || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

// What is in a state folder is nobody else's business: messages that are not public yet, and who may be let in.
func TestFolderIsForItsOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made by lock")
	h, err := statelock.Lock(t.Context(), dir, statelock.Options{})
	check(t, err)
	defer func() { check(t, h.Release()) }()
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, statelock.FileName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}
