package inbox_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

func pushes(t *testing.T, b *inbox.Inbox) inbox.Push {
	t.Helper()
	s, err := b.Look(t.Context(), mod)
	if err != nil {
		t.Fatal(err)
	}
	return s.Push
}

// Each push has a number, is kept when the process ends, and is done when work for it, or for a later one, is: of everything, or of content only.
func TestPushes(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(b.Ensure(t.Context(), start, mod))
	if p := pushes(t, b); p.Waits() || !p.Whole() || !p.Done(0, true) {
		t.Errorf("before any push: %+v", p)
	}
	for i, whole := range []bool{false, true, false} {
		n, err := b.Push(t.Context(), mod, inbox.Order{Whole: whole, Hops: i == 2, From: "192.0.2.1"}, start.Add(time.Duration(i)*time.Second))
		check(err)
		if n != uint64(i+1) {
			t.Errorf("push %d has number %d", i+1, n)
		}
	}
	check(b.Close())
	b = open(t, dir)
	if p := pushes(t, b); !p.Waits() || !p.Whole() || p.Asked != 3 || p.AskedWhole != 2 || p.AskedHops != 3 || !p.Hops() || !p.At.Equal(start) || p.From != "192.0.2.1" {
		t.Errorf("kept is %+v", p)
	}
	check(b.Pushed(t.Context(), mod, 3, false, true, start))
	if p := pushes(t, b); !p.Waits() || !p.Whole() || !p.Done(3, false) || p.Done(1, true) || p.Hops() || !p.Synced.IsZero() {
		t.Errorf("with the content of all it is %+v", p)
	}
	check(b.Pushed(t.Context(), mod, 2, true, true, start.Add(time.Minute)))
	if p := pushes(t, b); p.Waits() || !p.Done(2, true) || p.Done(3, true) || !p.Plain || !p.Synced.Equal(start.Add(time.Minute)) || !p.At.IsZero() {
		t.Errorf("with everything of the second it is %+v", p)
	}
	if _, err := b.Push(t.Context(), "other", inbox.Order{Whole: true}, start); err == nil {
		t.Error("a push of a module that is not there")
	}
}

// A state folder from before there were pushes takes them.
func TestPushesInOlderState(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if err := b.Ensure(t.Context(), start, mod); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, inbox.DatabaseName), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"DROP TABLE push", "ALTER TABLE heard DROP COLUMN overtaken", "UPDATE component SET version = 1 WHERE name = 'inbox'"} {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir)
	if n, err := b.Push(t.Context(), mod, inbox.Order{Whole: true}, start); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}
