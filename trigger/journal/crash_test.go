package journal_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// A reader that looks at any moment, while the writer exports 500 announcements and a manifest now and then, finds all that the head names.
func TestReaderNeverSeesATornExport(t *testing.T) {
	m := newMaster(t, journal.ExportOptions{Keep: journal.Retention{Count: 100}, Every: journal.Every{Entries: 40}})
	_, err := m.BuildManifest(t.Context(), nil)
	check(t, err)
	ctx, stop := context.WithCancel(t.Context())
	looks, newest := 0, event.Serial(0)
	var reader errgroup.Group
	reader.Go(func() error {
		for ; ctx.Err() == nil; looks++ {
			h, err := consistent(m.dir())
			if err != nil {
				return fmt.Errorf("look %d at serial %d: %w", looks, h.Serial, err)
			}
			if h.Serial < newest {
				return fmt.Errorf("serial %d after %d", h.Serial, newest)
			}
			newest = h.Serial
		}
		return nil
	})
	for i := range 500 {
		m.publish(t, fmt.Sprint("f", i))
		check(t, m.Export(t.Context()))
	}
	stop()
	check(t, reader.Wait())
	if looks == 0 {
		t.Error("the reader never looked")
	}
	if h, err := consistent(m.dir()); err != nil || h.Serial != 500 {
		t.Errorf("%+v, %v", h, err)
	}
}

const crashEnv = "MIRRORBUS_TEST_CRASH_DIR"

// TestCrashingMaster is no test of its own: TestKill9 starts it as a process. It announces from four goroutines and prints each serial it was promised.
func TestCrashingMaster(t *testing.T) {
	dir := os.Getenv(crashEnv)
	if dir == "" {
		t.Skip("only as a child of TestKill9")
	}
	j, _ := open(t, filepath.Join(dir, "state"), options(t))
	e := crashExporter(t, j, dir)
	var all errgroup.Group
	for g := range 4 {
		all.Go(func() error {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d-%d-%d", os.Getpid(), g, i)
				if err := os.WriteFile(filepath.Join(dir, "tree", name), nil, 0o644); err != nil {
					return err
				}
				a, err := j.Append(t.Context(), write(name))
				if err != nil {
					return err
				}
				fmt.Printf("promised %d\n", a.Announcement.Serial)
				if err := e.Export(t.Context()); err != nil {
					return err
				}
			}
		})
	}
	check(t, all.Wait())
}

func crashExporter(t *testing.T, j *journal.Journal, dir string) *journal.Exporter {
	t.Helper()
	m, err := manifest.Open(t.Context(), filepath.Join(dir, "state", "manifest.db"), module, manifest.Options{ShardEntries: 16})
	check(t, err)
	t.Cleanup(func() { check(t, m.Close()) })
	e, err := j.NewExporter(t.Context(), journal.ExportOptions{Module: module, Tree: filepath.Join(dir, "tree"), Manifest: m,
		Keep: journal.Retention{Count: 1000}, Every: journal.Every{Entries: 10}})
	check(t, err)
	t.Cleanup(func() { check(t, e.Close()) })
	if _, err := m.Position(t.Context()); errors.Is(err, manifest.ErrNotBuilt) {
		_, err := e.BuildManifest(t.Context(), nil)
		check(t, err)
	}
	return e
}

// Killed again and again at any point, the master keeps every serial it promised, its chain stays whole, and the next Export repairs the folder.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "tree"), 0o755))
	for round := range 5 {
		promised := crash(t, dir, 5+17*round)
		if t.Failed() {
			return
		}
		if _, err := consistent(filepath.Join(dir, "tree", event.ExportDir)); err != nil && !errors.Is(err, export.ErrNotExported) {
			t.Fatalf("round %d: after the kill: %v", round, err)
		}
		func() {
			j, epoch := open(t, filepath.Join(dir, "state"), options(t))
			defer func() { check(t, j.Close()) }()
			if n := len(checkChain(t, j, epoch)); n < promised {
				t.Fatalf("round %d: %d entries, %d were promised", round, n, promised)
			}
			t.Run("repaired", func(t *testing.T) {
				e := crashExporter(t, j, dir)
				check(t, e.Export(t.Context()))
				latest, err := j.Latest(t.Context(), module)
				check(t, err)
				if h, err := consistent(filepath.Join(dir, "tree", event.ExportDir)); err != nil || h.Last != latest.Digest {
					t.Errorf("round %d: %+v, %v", round, h, err)
				}
			})
		}()
	}
}

// crash runs TestCrashingMaster until it has made n promises, kills it, and returns the highest serial promised.
func crash(t *testing.T, dir string, n int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashingMaster$")
	cmd.Env = append(os.Environ(), crashEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	highest := 0
	var other []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		serial, ok := strings.CutPrefix(lines.Text(), "promised ")
		if !ok {
			other = append(other, lines.Text())
			continue
		}
		s, err := strconv.Atoi(serial)
		check(t, err)
		highest = max(highest, s)
		if n--; n == 0 {
			check(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || n > 0 {
		t.Errorf("the child ended by itself (%v): %s", err, strings.Join(other, "\n"))
	}
	return highest
}
