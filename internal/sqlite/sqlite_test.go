package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

var steps = []string{"CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT", "INSERT INTO t VALUES (1)"}

func schema(more ...string) []sqlite.Component {
	return []sqlite.Component{{Name: "numbers", Steps: slices.Concat(steps, more)}}
}

// versions asks for the version of each component, by name.
const versions = "SELECT group_concat(version) FROM (SELECT version FROM component ORDER BY name)"

func open(t *testing.T, path string, o sqlite.Options) *sql.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func ask(t *testing.T, db *sql.DB, query string) (answer string) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func exec(t *testing.T, db *sql.DB, query string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// What Options ask for is really set, also on a database that is there already and on each new connection.
func TestPragmas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	for _, c := range []struct {
		o    sqlite.Options
		want map[string]string
	}{
		{sqlite.Options{Durability: sqlite.Full}, map[string]string{"synchronous": "2", "cache_size": "-16384"}},
		{sqlite.Options{Durability: sqlite.Normal, CacheKiB: 100}, map[string]string{"synchronous": "1", "cache_size": "-100"}},
		{sqlite.Options{}, map[string]string{"synchronous": "2"}},
	} {
		db := open(t, path, c.o)
		for _, again := range []bool{false, true} {
			for pragma, want := range map[string]string{"journal_mode": "wal", "foreign_keys": "1", "busy_timeout": "5000", "journal_size_limit": "16777216"} {
				c.want[pragma] = want
			}
			for pragma, want := range c.want {
				if got := ask(t, db, "PRAGMA "+pragma); got != want {
					t.Errorf("%+v, new connection %v: %s is %s, want %s", c.o, again, pragma, got, want)
				}
			}
			db.SetMaxIdleConns(-1) // so that the next question opens a connection
		}
	}
}

func TestUnknownDurability(t *testing.T) {
	if db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), sqlite.Options{Durability: "EVENTUAL"}); err == nil {
		t.Errorf("opened with synchronous %s", ask(t, db, "PRAGMA synchronous"))
	}
}

// Each step of the schema is taken once, in order, whichever version a database begins at.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "odd name?#%20.db")
	for _, c := range []struct {
		steps   []string
		version string
		rows    string
	}{{steps[:1], "1", "0"}, {steps, "2", "1"}, {steps, "2", "1"}, {slices.Concat(steps, []string{"INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)"}), "3", "3"}} {
		db, err := sqlite.Open(t.Context(), path, sqlite.Options{Schema: []sqlite.Component{{Name: "numbers", Steps: c.steps}}})
		if err != nil {
			t.Fatal(err)
		}
		version, rows := ask(t, db, versions), ask(t, db, "SELECT count(*) FROM t")
		if version != c.version || rows != c.rows {
			t.Errorf("after %d steps: version %s, %s rows; want %s and %s", len(c.steps), version, rows, c.version, c.rows)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder made with mode %v, %v", info.Mode(), err)
	}
}

func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db := open(t, path, sqlite.Options{Schema: schema()})
	exec(t, db, "UPDATE component SET version = 3")
	_, err := sqlite.Open(t.Context(), path, sqlite.Options{Schema: schema()})
	if !errors.Is(err, sqlite.ErrNewer) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "numbers has version 3, this one knows 2") {
		t.Errorf("got %v", err)
	}
	if got := ask(t, db, versions); got != "3" {
		t.Errorf("the version is now %s", got)
	}
}

// A step that fails leaves the database as it was before all steps.
func TestMigrationIsOneTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if _, err := sqlite.Open(t.Context(), path, sqlite.Options{Schema: schema("INSERT INTO nowhere VALUES (1)")}); err == nil {
		t.Fatal("a broken step is taken")
	}
	db := open(t, path, sqlite.Options{})
	if n := ask(t, db, "SELECT count(*) FROM sqlite_schema"); n != "0" {
		t.Errorf("%s tables", n)
	}
}

// Each component keeps its own count: one that gains a step, or that comes later, moves no other.
func TestComponents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	sent := sqlite.Component{Name: "sent", Steps: []string{"CREATE TABLE sent (n INTEGER REFERENCES t(n)) STRICT"}}
	more := sqlite.Component{Name: "sent", Steps: slices.Concat(sent.Steps, []string{"INSERT INTO sent VALUES (2)"})}
	for _, c := range []struct {
		schema   []sqlite.Component
		versions string
	}{
		{schema(), "2"},
		{append(schema(), sent), "2,1"},
		{append(schema("INSERT INTO t VALUES (2)"), sent), "3,1"},
		{append(schema("INSERT INTO t VALUES (2)", ""), more), "4,2"},
	} {
		db, err := sqlite.Open(t.Context(), path, sqlite.Options{Schema: c.schema})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, db, versions); got != c.versions {
			t.Errorf("versions %s, want %s", got, c.versions)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for want, o := range map[string][]sqlite.Component{
		"sent has version 2, this one knows 1": append(schema("", ""), sent),
		"does not know its sent":               schema("", ""),
		"component \"numbers\" stands twice":   append(schema("", ""), more, schema("", "")[0]),
	} {
		_, err := sqlite.Open(t.Context(), path, sqlite.Options{Schema: o})
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, sqlite.ErrNewer) == strings.Contains(want, "twice") {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("this is no database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"no database": file, "below a file": filepath.Join(file, "db"), "a folder": dir} {
		if _, err := sqlite.Open(t.Context(), path, sqlite.Options{Schema: schema()}); err == nil || !strings.Contains(err.Error(), file) && name != "a folder" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTx(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"), sqlite.Options{Schema: schema()})
	insert := func(n int, after func() error) error {
		return sqlite.Tx(t.Context(), db, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(t.Context(), "INSERT INTO t VALUES (?)", n); err != nil {
				return err
			}
			return after()
		})
	}
	rows := func(want string) {
		t.Helper()
		if got := ask(t, db, "SELECT group_concat(n) FROM (SELECT n FROM t ORDER BY n)"); got != want {
			t.Errorf("rows %s, want %s", got, want)
		}
	}
	no := errors.New("no")
	if err := insert(2, func() error { return no }); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	rows("1")
	if err := insert(2, func() error { return nil }); err != nil {
		t.Error(err)
	}
	rows("1,2")
	if err := insert(2, func() error { return nil }); err == nil {
		t.Error("the same row twice")
	}
	rows("1,2")
}

// A transaction whose context ends on the way is undone, and the connection is good for the next one.
func TestTxCancelled(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "db"), sqlite.Options{Schema: schema()})
	ctx, cancel := context.WithCancel(t.Context())
	err := sqlite.Tx(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2)"); err != nil {
			return err
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	late, end := context.WithCancel(t.Context())
	err = sqlite.Tx(late, db, func(tx *sql.Tx) error {
		end()
		for { // until the library has rolled it back
			if _, err := tx.ExecContext(t.Context(), "SELECT 1"); errors.Is(err, sql.ErrTxDone) {
				return nil
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("rolled back before the end: got %v", err)
	}
	if got := ask(t, db, "SELECT count(*) FROM t"); got != "1" {
		t.Errorf("%s rows", got)
	}
	if err := sqlite.Tx(ctx, db, func(*sql.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("begun with a context that had ended: %v", err)
	}
}
