package inbox_test

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/transports"
)

const (
	mod   event.Module = "fedora"
	epoch event.Epoch  = "7c1e9f02"
)

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

func key(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%032d", seed))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// options put reports into a table of the test's own.
func options(t testing.TB) inbox.Options {
	signer := key(t, 2)
	return inbox.Options{
		Schema: []sqlite.Component{{Name: "sent", Steps: []string{"CREATE TABLE sent (body BLOB) STRICT"}}},
		Seal: func(r event.Report) (transports.Message, error) {
			r.Mirror = "mirror1"
			line, err := event.Seal(r, signer)
			return transports.Message{Topic: transports.Topic{Kind: transports.Report, Module: string(r.Module)}, ID: fmt.Sprint(r.Run), Body: line}, err
		},
		Enqueue: func(ctx context.Context, tx *sql.Tx, m transports.Message) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO sent VALUES (?)", m.Body)
			return err
		},
		Keep: 10,
	}
}

func open(t testing.TB, dir string) *inbox.Inbox {
	t.Helper()
	b, err := inbox.Open(t.Context(), dir, options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() }) //nolint:errcheck // some tests close it themselves
	if err := b.Ensure(t.Context(), start, mod); err != nil {
		t.Fatal(err)
	}
	return b
}

// sent are the reports in the outbox.
func sent(t testing.TB, b *inbox.Inbox) (all []event.Report) {
	t.Helper()
	rows, err := b.DB().Query("SELECT body FROM sent ORDER BY rowid")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // read only
	for rows.Next() {
		var line []byte
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		s, err := event.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, *s.Report)
	}
	return all
}

// chain makes announcements that follow each other, as a journal does.
type chain struct {
	t      testing.TB
	epoch  event.Epoch
	serial event.Serial
	prev   event.Digest
}

func (c *chain) next(kind event.Kind) inbox.Heard {
	c.t.Helper()
	c.serial++
	a := event.Announcement{Kind: kind, Module: mod, Epoch: c.epoch, Serial: c.serial, At: start, Prev: c.prev, Set: event.Sum([]byte("set"))}
	h := sealed(c.t, a)
	c.prev = h.Digest
	return h
}

func sealed(t testing.TB, a event.Announcement) inbox.Heard {
	t.Helper()
	line, err := event.Seal(a, key(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return inbox.Heard{Announcement: a, Line: line, Digest: event.Sum(line), Set: []byte("compressed"), At: start, Via: "mem"}
}

func headOf(t testing.TB, e event.Epoch, n event.Serial, last event.Digest, at time.Time) inbox.Head {
	t.Helper()
	h := event.Head{Module: mod, Epoch: e, Serial: n, At: at, TTL: 10 * time.Minute, Last: last}
	line, err := event.Seal(h, key(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return inbox.Head{Head: h, Line: line, At: at, Via: "mem"}
}

func put(t testing.TB, b *inbox.Inbox, want inbox.Verdict, all ...inbox.Heard) {
	t.Helper()
	for _, h := range all {
		v, err := b.Put(t.Context(), h, &event.Report{Module: mod, Epoch: h.Epoch, Serial: h.Serial, Outcome: event.Received})
		if err != nil || v != want {
			t.Fatalf("put %d: %s %v, want %s", h.Serial, v, err, want)
		}
	}
}

func look(t testing.TB, b *inbox.Inbox) inbox.Snapshot {
	t.Helper()
	s, err := b.Look(t.Context(), mod)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// adopt brings the module to a serial of an epoch, as a comparison with the manifest does.
func finish(t testing.TB, b *inbox.Inbox, h inbox.Heard) bool {
	t.Helper()
	more, err := b.Finish(t.Context(), inbox.Done{Module: mod, Epoch: h.Epoch, Through: h.Serial, Digest: h.Digest, At: start,
		Reports: []event.Report{{Module: mod, Epoch: h.Epoch, Serial: h.Serial, Outcome: event.Applied}}})
	if err != nil {
		t.Fatal(err)
	}
	return more
}

func hexOf(d event.Digest) string { return hex.EncodeToString(d[:4]) }
