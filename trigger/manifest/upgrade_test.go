package manifest

import (
	"os"
	"path/filepath"
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
