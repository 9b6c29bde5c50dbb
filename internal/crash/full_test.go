package crash_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
)

// mountSmall mounts a file system in memory with the given options, as in size=20m.
func mountSmall(t testing.TB, dir, options string) {
	t.Helper()
	testenv.NeedRoot(t)
	must(t, os.MkdirAll(dir, 0o755))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		testenv.Unable(t, "full disks, which need the right to mount: "+err.Error())
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
}

func remount(t testing.TB, dir, options string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, options))
}

// fill uses up a disk, and returns what gives the room back.
func fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	file := filepath.Join(dir, "filler")
	f, err := os.Create(file)
	must(t, err)
	for chunk := make([]byte, 1<<20); len(chunk) > 0; {
		if _, err = f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(file)) }
}

// Row 21, content: the mirror says that its disk is full, shows no index of what is missing, and goes on by itself.
func TestFullDiskOfContent(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	mountSmall(t, mirror, "size=40m")
	w := newWorld(t, t.TempDir(), mirror)
	w.begin()
	free := fill(t, mirror)
	must(t, os.WriteFile(filepath.Join(w.tree(), "pool/big"), make([]byte, 12<<20), 0o644)) // more than the ballast that the state gives back
	w.fullDisk("pool/big", free)
}

// Row 21, inodes: likewise.
func TestFullDiskOfInodes(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	mountSmall(t, mirror, "size=40m,nr_inodes=150")
	w := newWorld(t, t.TempDir(), mirror)
	w.begin()
	for i := range 200 {
		w.write(fmt.Sprintf("many/%d", i), 1)
	}
	w.fullDisk("many", func() { remount(t, mirror, "size=40m,nr_inodes=2000") })
}

// fullDisk announces a path that there is no room for, and then makes room.
func (w *world) fullDisk(path string, free func()) {
	w.t.Helper()
	w.turns++
	a := w.announcement().file("dists/index", w.turns)
	a.names = append(a.names, a.names[0])
	a.names[1].Path = path
	must(w.t, a.publish())
	w.waitState(listener.Blocked, "")
	if s := stateOf(w.copy(), "dists/index"); s == fmt.Sprint("version ", w.turns) {
		w.t.Errorf("the index is there without its content")
	}
	for _, m := range w.history.missing(w.copy(), w.reported) {
		w.t.Error(m)
	}
	free()
	w.sync()
	w.current()
}

// Row 21, state: without room to write down what it hears the mirror says so, does not go on and does not end; with room it goes on by itself, and
// has everything.
func TestFullDiskOfTheMirrorsState(t *testing.T) {
	t.Parallel()
	mirror := t.TempDir()
	mountSmall(t, filepath.Join(mirror, "state"), "size=30m")
	w := newWorld(t, t.TempDir(), mirror)
	w.begin()
	fill(t, w.inbox())
	for range 8 { // until the ballast is used up, too
		w.turns++
		must(t, w.release(w.turns))
	}
	must(t, os.Rename(filepath.Join(w.inbox(), "filler"), filepath.Join(w.inbox(), "first")))
	full := fill(t, w.inbox())
	for range 8 {
		w.turns++
		must(t, w.release(w.turns))
	}
	testenv.WaitFor(t, bound, func() error {
		s, err := w.agentStatus()
		if err == nil && !strings.Contains(s.Error, "make room") && !strings.Contains(s.Error, "full") {
			err = fmt.Errorf("state %s: %q", s.State, s.Error)
		}
		return err
	})
	if w.agent.dead() {
		t.Fatal("the agent has ended")
	}
	must(t, w.watch())
	for _, m := range w.history.missing(w.copy(), w.reported) {
		t.Error(m)
	}
	full()
	must(t, os.Remove(filepath.Join(w.inbox(), "first")))
	w.current()
}

// Row 21, the master's state: publish fails and says why, nothing of it is announced, and what was is not lost.
func TestFullDiskOfTheMastersState(t *testing.T) {
	t.Parallel()
	master := t.TempDir()
	mountSmall(t, filepath.Join(master, "state"), "size=20m")
	w := newWorld(t, master, t.TempDir())
	w.begin()
	free := fill(t, filepath.Join(master, "state"))
	var err error
	for range 200 {
		w.turns++
		if err = w.release(w.turns); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("publish on a full disk: %v", err)
	}
	free()
	w.retry()
	w.current()
}
