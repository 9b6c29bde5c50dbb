package crash_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// A disk is an ext4 file system in a file, which can lose its power: then what is left is what the file held at that moment. Its journal commits by
// itself only every five minutes, so whatever nobody has synced is lost.
type disk struct {
	t     testing.TB
	dir   string // where the image lies, in memory
	mount string
	cuts  int
}

// newDisk makes and mounts a disk. A machine that cannot, as most containers, skips the test, and says so where everything is required, too: that
// nothing is missing is not the same as that everything is allowed.
func newDisk(t testing.TB) *disk {
	t.Helper()
	testenv.Need(t, "mkfs.ext4")
	shm := "/dev/shm"
	if _, err := os.Stat(shm); err != nil {
		shm = ""
	}
	dir, err := os.MkdirTemp(shm, "mirrorbus-disk-")
	must(t, err)
	d := &disk{t: t, dir: dir, mount: filepath.Join(t.TempDir(), "disk")}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, errors.Join(os.Mkdir(d.mount, 0o755), os.WriteFile(d.image(), nil, 0o600), os.Truncate(d.image(), 512<<20)))
	err = run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=16", d.image())
	if err == nil {
		err = d.attach()
	}
	if err != nil {
		testenv.Unable(t, "power cuts, which need root and loop devices: "+err.Error())
	}
	t.Cleanup(func() { must(t, d.detach()) })
	return d
}

func run(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (d *disk) image() string { return filepath.Join(d.dir, fmt.Sprint(d.cuts)) }
func (d *disk) next() string  { return filepath.Join(d.dir, fmt.Sprint(d.cuts+1)) }

func (d *disk) attach() error { return run("mount", "-o", "loop,commit=300", d.image(), d.mount) }

// detach waits for those that end: rsync, after its agent was killed.
func (d *disk) detach() error {
	var err error
	for range 100 {
		if err = run("umount", d.mount); err == nil || !strings.Contains(err.Error(), "busy") {
			return err
		}
		time.Sleep(short)
	}
	return err
}

// freeze keeps what has reached the disk until now.
func (d *disk) freeze() error { return run("cp", "--sparse=always", d.image(), d.next()) }

// thaw puts in place what freeze has kept.
func (d *disk) thaw() {
	d.t.Helper()
	must(d.t, d.detach())
	must(d.t, os.Remove(d.image()))
	d.cuts++
	must(d.t, d.attach())
}

// The harness itself: what was synced is there after a cut, and what was not is not.
func TestAPowerCutLosesWhatWasNotSynced(t *testing.T) {
	testenv.NeedRoot(t)
	d := newDisk(t)
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(d.mount, name))
		must(t, err)
		_, err = f.WriteString(strings.Repeat(name, 1000))
		if sync {
			err = errors.Join(err, f.Sync())
		}
		must(t, errors.Join(err, f.Close()))
	}
	write("synced", true)
	write("not", false)
	must(t, d.freeze())
	d.thaw()
	if b, err := os.ReadFile(filepath.Join(d.mount, "synced")); string(b) != strings.Repeat("synced", 1000) {
		t.Errorf("what was synced: %d bytes, %v", len(b), err)
	}
	if b, err := os.ReadFile(filepath.Join(d.mount, "not")); err == nil && len(b) > 0 {
		t.Errorf("what was not synced is there: %d bytes", len(b))
	}
}
