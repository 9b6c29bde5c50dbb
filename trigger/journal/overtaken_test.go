package journal_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// seen is an entry whose author began to look when the module stood at st.
func seen(st journal.State, e journal.Entry) journal.Entry {
	e.Seen = &st
	return e
}

func stand(t testing.TB, j *journal.Journal) journal.State {
	t.Helper()
	st, err := j.State(t.Context(), module)
	check(t, err)
	return st
}

func wantOvertaken(t testing.TB, j *journal.Journal, e journal.Entry, want bool) {
	t.Helper()
	before := stand(t, j)
	_, err := j.Append(t.Context(), e)
	switch {
	case want && !errors.Is(err, journal.ErrOvertaken):
		t.Errorf("what was seen before something newer was announced: %v", err)
	case want && stand(t, j).Serial != before.Serial:
		t.Error("it was refused, and has a serial")
	case !want && err != nil:
		t.Error(err)
	}
}

func TestWhatIsOvertakenIsRefused(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, options(t))
	appendN(t, j, 1, 3)
	at := stand(t, j)
	wantOvertaken(t, j, seen(at, write("f00003")), false) // announced, but before that look
	wantOvertaken(t, j, seen(at, write("f00003")), true)
	wantOvertaken(t, j, seen(at, write("other")), false)
	wantOvertaken(t, j, seen(stand(t, j), write("f00003", "other")), false)
	wantOvertaken(t, j, write("f00003"), false) // nobody has looked

	check(t, j.Close()) // nothing is remembered then
	j, _ = open(t, dir, options(t))
	wantOvertaken(t, j, seen(at, write("f00003")), true)
	wantOvertaken(t, j, seen(at, write("still another")), false)

	_, err := j.Append(t.Context(), journal.Entry{Module: module, Kind: event.Change})
	check(t, err)
	wantOvertaken(t, j, seen(at, write("and another")), true) // anything may have changed
	wantOvertaken(t, j, seen(at, journal.Entry{Module: module, Kind: event.Change}), false)
}

func TestWhatWasSeenInAnotherEpochIsOvertaken(t *testing.T) {
	j, _ := open(t, t.TempDir(), options(t))
	at := stand(t, j)
	_, err := j.NewEpoch(t.Context(), module)
	check(t, err)
	wantOvertaken(t, j, seen(at, write("a")), true)
}

func TestWhatWasSeenBeforeTheJournalWasTrimmedIsOvertaken(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, options(t))
	at := stand(t, j)
	appendN(t, j, 1, 5)
	check(t, j.Close())
	j, _ = open(t, dir, options(t))
	_, err := j.Trim(t.Context(), module, journal.Retention{Count: 1})
	check(t, err)
	wantOvertaken(t, j, seen(at, write("a")), true)
}

// What a transaction took with it when it failed was never announced.
func TestWhatWasNotStoredOvertakesNothing(t *testing.T) {
	o := options(t)
	var fail error
	o.Outbox = func(context.Context, *sql.Tx, journal.Appended) error { return fail }
	j, _ := open(t, t.TempDir(), o)
	at := stand(t, j)
	fail = errors.New("no room")
	if _, err := j.Append(t.Context(), write("a")); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	fail = nil
	wantOvertaken(t, j, seen(at, write("b")), false)
	wantOvertaken(t, j, seen(at, write("a")), false)
	wantOvertaken(t, j, seen(at, write("b")), true)
}
