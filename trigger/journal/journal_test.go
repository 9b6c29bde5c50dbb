package journal_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

const module = event.Module("m")

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func signer(t testing.TB) ssh.Signer {
	t.Helper()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	check(t, err)
	return key
}

func options(t testing.TB) journal.Options {
	return journal.Options{Signer: signer(t), Now: func() time.Time { return start }}
}

// open opens the state folder dir with one module and returns its epoch.
func open(t testing.TB, dir string, o journal.Options) (*journal.Journal, event.Epoch) {
	t.Helper()
	j, err := journal.Open(t.Context(), dir, o)
	check(t, err)
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { j.Close() }) }) //nolint:errcheck // tests that care close it themselves
	epoch, err := j.CreateModule(t.Context(), module)
	check(t, err)
	return j, epoch
}

func write(paths ...string) journal.Entry {
	var records []event.Record
	for _, p := range paths {
		records = append(records, event.Record{Op: event.Write, Mode: event.ModeFile | 0o644, Size: 5, MTime: event.Stamp{Sec: 1}, Path: p})
	}
	set, err := event.NewPathSet(records)
	if err != nil {
		panic(err) // a wrong test
	}
	return journal.Entry{Module: module, Kind: event.Change, Set: set, Principal: "alice", Source: "publish"}
}

func appendN(t testing.TB, j *journal.Journal, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		_, err := j.Append(t.Context(), write(fmt.Sprintf("f%05d", i)))
		check(t, err)
	}
}

// checkChain reads all of an epoch and makes sure that it is 1, 2, 3, … each naming the one before, signed, with the path set it names.
func checkChain(t testing.TB, j *journal.Journal, epoch event.Epoch) []journal.Stored {
	t.Helper()
	var all []journal.Stored
	var prev event.Digest
	for s, err := range j.Since(t.Context(), module, epoch, 0) {
		check(t, err)
		if s.Announcement.Serial != event.Serial(len(all)+1) || s.Announcement.Prev != prev {
			t.Fatalf("entry %d: serial %d prev %s, want prev %s", len(all)+1, s.Announcement.Serial, s.Announcement.Prev, prev)
		}
		if s.Set != nil {
			_, err := envelope.PathSet(s.Set, s.Announcement.Set)
			check(t, err)
		}
		all, prev = append(all, s), s.Digest
	}
	return all
}

func TestAppendAndRead(t *testing.T) {
	j, epoch := open(t, t.TempDir(), options(t))
	e := write("a", "b\nc")
	a, err := j.Append(t.Context(), e)
	check(t, err)
	if got := a.Announcement; got.Serial != 1 || got.Epoch != epoch || !got.Prev.IsZero() || got.Count != 2 || got.Set != e.Set.Digest() || !got.At.Equal(start) {
		t.Errorf("got %+v", got)
	}
	_, err = j.Append(t.Context(), journal.Entry{Module: module, Kind: event.Change})
	check(t, err)
	all := checkChain(t, j, epoch)
	if len(all) != 2 || string(all[0].Line) != string(a.Line) || all[0].Principal != "alice" || all[0].Source != "publish" || all[1].Set != nil {
		t.Errorf("got %+v", all)
	}
	latest, err := j.Latest(t.Context(), module)
	if err != nil || latest.Announcement.Serial != 2 || !latest.Announcement.Set.IsZero() {
		t.Errorf("latest %+v, %v", latest, err)
	}
	log, err := j.Log(t.Context(), module, 0, 10)
	if err != nil || len(log) != 2 || log[0].Announcement.Serial != 2 {
		t.Errorf("log %+v, %v", log, err)
	}
	if _, err := j.Get(t.Context(), module, 3); !errors.Is(err, journal.ErrUnknownSerial) {
		t.Errorf("got %v", err)
	}
}

func TestHead(t *testing.T) {
	j, epoch := open(t, t.TempDir(), options(t))
	for want := range 2 {
		line, h, err := j.Head(t.Context(), module, 15*time.Minute, start)
		check(t, err)
		read, err := event.Read(line)
		check(t, err)
		if *read.Head != h || h.Serial != event.Serial(want) || h.Epoch != epoch || h.TTL != 15*time.Minute || !h.Manifest.IsZero() {
			t.Errorf("got %+v", h)
		}
		appendN(t, j, 1, 1)
	}
}

func TestAppendRefuses(t *testing.T) {
	j, epoch := open(t, t.TempDir(), options(t))
	flip := write("a")
	flip.Kind = event.Flip
	waiting := write("a")
	waiting.NotBefore = time.Second
	unsorted := write("a", "b")
	unsorted.Set[0], unsorted.Set[1] = unsorted.Set[1], unsorted.Set[0]
	serial := write("a")
	serial.Set[0].Serial = 1
	backwards := write("a")
	backwards.Kind, backwards.Set[0].Op, backwards.NotBefore, backwards.Expires = event.Flip, event.Meta, time.Hour, time.Minute
	for name, e := range map[string]journal.Entry{
		"empty set":                   {Module: module, Kind: event.Change, Set: event.PathSet{}},
		"flip of content":             flip,
		"flip of nothing":             {Module: module, Kind: event.Flip},
		"change that waits":           waiting,
		"unsorted":                    unsorted,
		"path outside":                unchecked("../a"),
		"head":                        {Module: module, Kind: event.HeadIs},
		"serial in a record":          serial,
		"expires before it may begin": backwards,
	} {
		if _, err := j.Append(t.Context(), e); !errors.Is(err, journal.ErrRefused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	unknown := write("a")
	unknown.Module = "other"
	if _, err := j.Append(t.Context(), unknown); !errors.Is(err, journal.ErrUnknownModule) || fault.StatusOf(err) != fault.Usage {
		t.Errorf("got %v", err)
	}
	if all := checkChain(t, j, epoch); len(all) != 0 {
		t.Errorf("%d serials were taken", len(all))
	}
}

func unchecked(path string) journal.Entry {
	return journal.Entry{Module: module, Kind: event.Change, Set: event.PathSet{{Op: event.Write, Mode: event.ModeFile, Path: path}}}
}

// Fifty callers at once, some of them refused by the outbox: each has its own outcome and its own row there, and it takes fewer transactions than callers.
func TestGroupCommit(t *testing.T) {
	o := options(t)
	o.Schema = []sqlite.Component{{Name: "sent", Steps: []string{"CREATE TABLE sent (serial INTEGER PRIMARY KEY, source TEXT)"}}}
	commits := map[*sql.Tx]bool{}
	o.Outbox = func(ctx context.Context, tx *sql.Tx, a journal.Appended) error {
		commits[tx] = true
		if _, err := tx.ExecContext(ctx, "INSERT INTO sent VALUES (?, ?)", a.Announcement.Serial, a.Source); err != nil {
			return err
		}
		if strings.HasSuffix(a.Source, "7") {
			return fmt.Errorf("no room for %s", a.Source)
		}
		return nil
	}
	j, epoch := open(t, t.TempDir(), o)
	var all errgroup.Group
	for i := range 50 {
		all.Go(func() error {
			for n := range 4 {
				e := write(fmt.Sprintf("f%d-%d", i, n))
				e.Source = fmt.Sprint(i)
				a, err := j.Append(t.Context(), e)
				switch {
				case i%10 == 7 && (err == nil || !strings.Contains(err.Error(), "no room for "+e.Source)):
					return fmt.Errorf("source %d: got %v", i, err)
				case i%10 != 7 && (err != nil || a.Source != e.Source || a.Announcement.Set != e.Set.Digest()):
					return fmt.Errorf("source %d: got %+v, %v", i, a, err)
				}
			}
			return nil
		})
	}
	check(t, all.Wait())
	if n := len(checkChain(t, j, epoch)); n != 180 {
		t.Errorf("%d entries, want 180", n)
	}
	var sent int
	check(t, j.DB().QueryRow("SELECT count(*) FROM sent").Scan(&sent))
	if sent != 180 {
		t.Errorf("%d rows in the outbox, want 180", sent)
	}
	if len(commits) >= 200 {
		t.Errorf("%d transactions for 200 calls", len(commits))
	}
}

func TestAppendGivesUpOnlyBeforeTheCommit(t *testing.T) {
	inside, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o := options(t)
	o.Outbox = func(context.Context, *sql.Tx, journal.Appended) error {
		once.Do(func() { close(inside); <-goOn })
		return nil
	}
	j, epoch := open(t, t.TempDir(), o)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { _, err := j.Append(ctx, write("first")); first <- err }()
	<-inside
	late, cancelLate := context.WithCancel(t.Context())
	cancelLate()
	if _, err := j.Append(late, write("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: got %v", err)
	}
	cancel()
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("being committed: got %v", err)
	}
	if n := len(checkChain(t, j, epoch)); n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestNewEpoch(t *testing.T) {
	j, before := open(t, t.TempDir(), options(t))
	appendN(t, j, 1, 3)
	epoch, err := j.NewEpoch(t.Context(), module)
	check(t, err)
	if again, err := j.CreateModule(t.Context(), module); err != nil || again != epoch || epoch == before {
		t.Errorf("epoch %s, then %s and %s, %v", before, epoch, again, err)
	}
	appendN(t, j, 1, 2)
	if n := len(checkChain(t, j, epoch)); n != 2 {
		t.Errorf("%d entries", n)
	}
	for _, err := range j.Since(t.Context(), module, before, 1) {
		if !errors.Is(err, journal.ErrOtherEpoch) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := j.NewEpoch(t.Context(), "other"); !errors.Is(err, journal.ErrUnknownModule) {
		t.Errorf("got %v", err)
	}
}

func TestTrim(t *testing.T) {
	j, epoch := open(t, t.TempDir(), options(t))
	appendN(t, j, 1, 100)
	size := 0
	for _, s := range checkChain(t, j, epoch)[90:] {
		size += len(s.Line) + len(s.Set)
	}
	for _, c := range []struct {
		keep journal.Retention
		want event.Serial
	}{
		{journal.Retention{}, 1},
		{journal.Retention{Count: 60}, 41},
		{journal.Retention{Count: 1000}, 41},
		{journal.Retention{Bytes: int64(size)}, 91},
		{journal.Retention{Bytes: 1}, 100},
	} {
		if floor, err := j.Trim(t.Context(), module, c.keep); err != nil || floor != c.want {
			t.Errorf("%+v: floor %d, %v; want %d", c.keep, floor, err, c.want)
		}
	}
	if _, err := j.Get(t.Context(), module, 99); !errors.Is(err, journal.ErrTrimmed) {
		t.Errorf("got %v", err)
	}
	var last error
	for _, err := range j.Since(t.Context(), module, epoch, 50) {
		last = err
	}
	if !errors.Is(last, journal.ErrTrimmed) {
		t.Errorf("got %v", last)
	}
	appendN(t, j, 101, 101)
}

func TestStateFolderInUse(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, options(t))
	_, err := journal.Open(t.Context(), dir, options(t))
	if !errors.Is(err, journal.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || fault.HintOf(err) == "" {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

func TestStateFromANewerVersion(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, options(t))
	_, err := j.DB().Exec("UPDATE component SET version = 99 WHERE name = 'journal'")
	check(t, err)
	check(t, j.Close())
	if _, err := journal.Open(t.Context(), dir, options(t)); !errors.Is(err, sqlite.ErrNewer) || fault.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestDamagedDatabaseIsNamed(t *testing.T) {
	for name, damage := range map[string]func(b []byte){
		"header": func(b []byte) { copy(b, "garbage garbage garbage") },
		"pages": func(b []byte) {
			for i := 4096; i < len(b); i++ {
				b[i] = 0xa5
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, _ := open(t, dir, options(t))
			appendN(t, j, 1, 50)
			check(t, j.Close())
			file := filepath.Join(dir, journal.DatabaseName)
			b, err := os.ReadFile(file)
			check(t, err)
			damage(b)
			check(t, os.WriteFile(file, b, 0o600))
			check(t, os.WriteFile(filepath.Join(dir, "lock"), []byte("process 1\n"), 0o600)) // an unclean stop
			_, err = journal.Open(t.Context(), dir, options(t))
			if !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), file) || fault.HintOf(err) == "" {
				t.Errorf("got %v, hint %q", err, fault.HintOf(err))
			}
		})
	}
}

// SQLite reports a limit on its pages as it reports a full disk.
func TestDiskFullLosesNothing(t *testing.T) {
	j, epoch := open(t, t.TempDir(), options(t))
	appendN(t, j, 1, 3)
	limit := func(pages int) {
		_, err := j.DB().Exec(fmt.Sprint("PRAGMA max_page_count = ", pages))
		check(t, err)
	}
	var pages int
	check(t, j.DB().QueryRow("PRAGMA page_count").Scan(&pages))
	limit(pages)
	kept := 3
	for i := range 100 {
		_, err := j.Append(t.Context(), write(fmt.Sprint("more", i)))
		if err == nil {
			kept++
			continue
		}
		if fault.StatusOf(err) != fault.TryAgain || !strings.Contains(fault.HintOf(err), "make room") {
			t.Fatalf("got %v, hint %q", err, fault.HintOf(err))
		}
	}
	if kept == 103 {
		t.Fatal("the disk was never full")
	}
	limit(1 << 30)
	appendN(t, j, 1, 1)
	if n := len(checkChain(t, j, epoch)); n != kept+1 {
		t.Errorf("%d entries, want %d", n, kept+1)
	}
}
