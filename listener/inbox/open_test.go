package inbox_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

func TestStateFolderInUse(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	_, err := inbox.Open(t.Context(), dir, options(t))
	if !errors.Is(err, inbox.ErrInUse) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "process ") || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestNewerSchema(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if _, err := b.DB().Exec("UPDATE component SET version = 99 WHERE name = 'inbox'"); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := inbox.Open(t.Context(), dir, options(t))
	if !errors.Is(err, sqlite.ErrNewer) || !strings.Contains(fault.HintOf(err), "aside") {
		t.Errorf("%v", err)
	}
}

func TestCorruptDatabaseNamesFileAndRemedy(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"header": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage ", 1000)), 0o600) },
		"page": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			for page := int64(1); page < 12; page++ {
				if _, err := f.WriteAt([]byte(strings.Repeat("\xa5", 4096)), page*4096); err != nil {
					return err
				}
			}
			return f.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := open(t, dir)
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "lock"), []byte("process 1\n"), 0o600); err != nil { // as after a kill
				t.Fatal(err)
			}
			path := filepath.Join(dir, inbox.DatabaseName)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			_, err := inbox.Open(t.Context(), dir, options(t))
			if !errors.Is(err, inbox.ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(fault.HintOf(err), "rebuilds") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestKilledAfterPut lets a child store announcements and kills it: what it said was stored is there.
func TestKilledAfterPut(t *testing.T) {
	if dir := os.Getenv("INBOX_CHILD"); dir != "" {
		b, c := open(t, dir), &chain{t: t, epoch: epoch}
		finish(t, b, c.next(event.Change))
		put(t, b, inbox.Stored, c.next(event.Change))
		if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledAfterPut$")
	cmd.Env = append(os.Environ(), "INBOX_CHILD="+dir)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("%v %s", err, out)
	}
	if s := look(t, open(t, dir)); s.Applied != 1 || s.Through != 2 {
		t.Errorf("%+v", s)
	}
}

func TestFullDiskCanStillBeWrittenDown(t *testing.T) {
	testenv.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	o := options(t)
	o.Ballast = 1 << 20
	b, err := inbox.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // the disk is full
	if err := b.Ensure(t.Context(), start, mod); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if info, err := os.Stat(ballast); err != nil || info.Size() != 1<<20 {
		t.Fatal("no ballast", err)
	}
	fill(t, filepath.Join(dir, "filler"))
	if err := b.Fail(t.Context(), mod, inbox.Trouble{Kind: "blocked", Error: "disk full: " + strings.Repeat("x", 100_000)}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ballast); !os.IsNotExist(err) {
		t.Error("ballast still there", err)
	}
	fill(t, filepath.Join(dir, "filler2"))
	c := &chain{t: t, epoch: epoch}
	h := c.next(event.Change)
	h.Set = make([]byte, 200_000)
	_, err = b.Put(t.Context(), h, nil)
	if err == nil || !strings.Contains(fault.HintOf(err), "make room") {
		t.Errorf("%v", err)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // full on purpose
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// After a backup is restored, the reports that follow count as newer than those it has forgotten: a master that remembers them would ignore them else.
func TestReportsOfARestoredBackupAreNewer(t *testing.T) {
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	run := func(times int) (last uint64) {
		t.Helper()
		b := open(t, dir)
		for range times {
			msg, err := b.Have(t.Context(), event.Report{Module: mod})
			if err != nil {
				t.Fatal(err)
			}
			read, err := event.Read(msg.Body)
			if err != nil || read.Report.Run <= last {
				t.Fatalf("%+v %v, after run %d", read.Report, err, last)
			}
			last = read.Report.Run
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		return last
	}
	b := open(t, dir)
	if err := errors.Join(b.Ensure(t.Context(), start, mod), b.Close(), os.CopyFS(backup, os.DirFS(dir))); err != nil {
		t.Fatal(err)
	}
	before := run(5)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(backup, dir)); err != nil {
		t.Fatal(err)
	}
	if after := run(1); after <= before {
		t.Errorf("run %d after %d", after, before)
	}
}
