package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// A manifest of before there were scans knows of its names, and not where the tree lay: the first scan notes that.
func TestCompareWithAnOlderManifest(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, file := t.TempDir(), filepath.Join(t.TempDir(), "manifest.db")
	must(os.Mkdir(filepath.Join(root, "d"), 0o755))
	for _, name := range []string{"d/a", "d/b"} {
		must(os.WriteFile(filepath.Join(root, name), []byte(name), 0o644))
	}
	db, err := sqlite.Open(t.Context(), file, sqlite.Options{Durability: sqlite.Normal, Schema: []sqlite.Component{{Name: "manifest", Steps: []string{schema}}}})
	must(err)
	_, err = db.ExecContext(t.Context(), `INSERT INTO dir (dir, parent, path) VALUES (1, NULL, x''), (2, 1, CAST('d' AS BLOB));
		INSERT INTO entry (dir, name, mode, size, sec, nsec, serial) VALUES (1, CAST('d' AS BLOB), 16877, 0, 0, 0, 0), (2, CAST('a' AS BLOB), 33188, 3, 1, 0, 0);
		INSERT INTO position VALUES ('0123abcd', 0, 0)`)
	must(err)
	must(db.Close())
	m, err := Open(t.Context(), file, "m", Options{})
	must(err)
	t.Cleanup(func() { must(m.Close()) })
	d, err := m.Compare(t.Context(), root, CompareOptions{}, nil)
	must(err)
	if !d.Unsettled || len(d.Set) != 2 || d.Set[0].Path != "d/a" || d.Set[1].Path != "d/b" || d.Set[0].Op != event.Write {
		t.Errorf("%+v", d)
	}
	must(m.Settle(t.Context(), d))
	_, err = m.Apply(t.Context(), Change{Serial: 1, Set: d.Set}, root)
	must(err)
	for range 2 {
		if d, err = m.Compare(t.Context(), root, CompareOptions{}, nil); err != nil || d.Unsettled || len(d.Set) > 0 {
			t.Errorf("%+v, %v", d, err)
		}
	}
	var noted int
	must(m.look.QueryRowContext(t.Context(), "SELECT count(*) FROM dir WHERE seen IS NOT NULL").Scan(&noted))
	if noted != 2 {
		t.Errorf("%d directories are known to be the same", noted)
	}
	must(m.noteSeen(t.Context(), Position{Epoch: "0123abcd"}, []unchanged{{1, []byte("stale")}, {2, []byte("stale")}}))
	var stale int
	must(m.look.QueryRowContext(t.Context(), "SELECT count(*) FROM dir WHERE seen = CAST('stale' AS BLOB)").Scan(&stale))
	if stale != 0 {
		t.Error("what was compared before something was applied is noted after it")
	}
}

// A manifest of before numbers were kept knows only the inodes of several names. A comparison brings the others, though it finds no difference.
func TestNumbersOfAnOlderManifest(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	root, file := t.TempDir(), filepath.Join(t.TempDir(), "manifest.db")
	inos := map[string]uint64{}
	must(os.Mkdir(filepath.Join(root, "d"), 0o755))
	for _, name := range []string{"a", "d/a", "d/b"} {
		must(os.WriteFile(filepath.Join(root, name), []byte(name), 0o644))
	}
	must(os.Link(filepath.Join(root, "d/b"), filepath.Join(root, "c")))
	for _, name := range []string{"a", "d/a", "d/b"} {
		info, err := os.Lstat(filepath.Join(root, name))
		must(err)
		inos[name] = info.Sys().(*syscall.Stat_t).Ino
	}
	open := func() *Manifest {
		t.Helper()
		m, err := Open(t.Context(), file, "m", Options{})
		must(err)
		t.Cleanup(func() { _ = m.Close() })
		return m
	}
	m := open()
	_, err := m.Build(t.Context(), root, "0123abcd", 0, nil)
	must(err)
	_, err = m.db.ExecContext(t.Context(), "DROP INDEX entry_ino; ALTER TABLE entry DROP COLUMN ino; UPDATE component SET version = 2")
	must(err)
	must(m.Close())
	m = open()
	knows := func(when string, want map[string]string) {
		t.Helper()
		for name, names := range want {
			got, err := m.Linked(t.Context(), inos[name])
			if err != nil || strings.Join(got, " ") != names {
				t.Errorf("%s, the names of %s: %q, %v, want %q", when, name, got, err, names)
			}
		}
	}
	all := map[string]string{"a": "a", "d/a": "d/a", "d/b": "c d/b"}
	knows("after the upgrade", map[string]string{"a": "", "d/a": "", "d/b": "c d/b"})
	_, err = m.Apply(t.Context(), Change{Serial: 1, Set: event.PathSet{{Op: event.Tree, Path: "d"}}}, root)
	must(err)
	knows("when d was announced", map[string]string{"a": "", "d/a": "d/a", "d/b": "c d/b"})
	for range 2 {
		d, err := m.Compare(t.Context(), root, CompareOptions{}, nil)
		if err != nil || len(d.Set) > 0 {
			t.Errorf("%+v, %v", d, err)
		}
		knows("after a comparison", all)
	}
	var noted int
	must(m.look.QueryRowContext(t.Context(), "SELECT count(*) FROM dir WHERE seen IS NOT NULL").Scan(&noted))
	if noted != 2 {
		t.Errorf("%d directories are known to be the same", noted)
	}
}

// To ask for an inode is to look into an index, of which the number of names does not matter; and any number that a file system gives can be kept.
func TestLinkedLooksIntoAnIndex(t *testing.T) {
	m, err := Open(t.Context(), filepath.Join(t.TempDir(), "manifest.db"), "m", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close() //nolint:errcheck // nothing is left to write
	plans := 0
	for _, query := range []string{linkedQuery, linkedBelowQuery} {
		rows, err := m.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, 1, 1, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plans++
			if strings.Contains(detail, "SCAN") {
				t.Errorf("%s: %s", query, detail)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if plans == 0 {
		t.Error("no plan")
	}
	if _, err := m.db.ExecContext(t.Context(), "INSERT INTO dir (path) VALUES (x'')"); err != nil {
		t.Fatal(err)
	}
	for _, ino := range []uint64{1, 1 << 40, 1 << 63, 1<<64 - 1} {
		err := m.change(t.Context(), func(c *changer) error {
			return c.put(event.Record{Op: event.Write, Mode: event.ModeFile, Path: fmt.Sprint(ino)}, ino)
		})
		if err != nil {
			t.Fatal(err)
		}
		names, err := m.Linked(t.Context(), ino)
		k, _, err2 := m.row(t.Context(), fmt.Sprint(ino))
		if err = errors.Join(err, err2); err != nil || !slices.Equal(names, []string{fmt.Sprint(ino)}) || k.ino != ino {
			t.Errorf("%d: %q, %d, %v", ino, names, k.ino, err)
		}
	}
}
