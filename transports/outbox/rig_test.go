package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

var (
	fedora = transports.Topic{Kind: transports.Announce, Module: "fedora"}
	debian = transports.Topic{Kind: transports.Announce, Module: "debian"}
	limits = transports.Capabilities{MaxBody: 10}
)

// open makes a database with nothing but an outbox. In a synctest bubble it must be closed before the end.
func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), sqlite.Options{Durability: sqlite.Normal, Schema: []sqlite.Component{outbox.Schema()}})
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

func entry(topic transports.Topic, body string) outbox.Entry {
	return outbox.Entry{Message: transports.Message{Topic: topic, ID: "id", Body: []byte(body)}}
}

// put stores entries for the named transports.
func put(t *testing.T, db *sql.DB, names []string, entries ...outbox.Entry) {
	t.Helper()
	err := sqlite.Tx(t.Context(), db, func(tx *sql.Tx) error {
		for _, e := range entries {
			if err := outbox.Put(t.Context(), tx, e, names); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// count asks the database for a number.
func count(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func stat(t *testing.T, db *sql.DB) outbox.Stat {
	t.Helper()
	all, err := outbox.Stats(t.Context(), db)
	if err != nil || len(all) != 1 {
		t.Fatalf("stats are %+v, %v; want those of one transport", all, err)
	}
	return all[0]
}

// next is a transport that takes what fail does not object to.
type next struct {
	mu    sync.Mutex
	fail  func(m transports.Message) error
	got   []string // topic and body
	tries []time.Time
}

func (n *next) Publish(_ context.Context, m transports.Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries = append(n.tries, time.Now())
	if n.fail != nil {
		if err := n.fail(m); err != nil {
			return err
		}
	}
	n.got = append(n.got, m.Topic.String()+" "+string(m.Body))
	return nil
}

func (n *next) set(fail func(transports.Message) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = fail
}

func (n *next) received() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

func (n *next) attempts() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.tries)
}

// failing returns a fail func for everything.
func failing(err error) func(transports.Message) error {
	return func(transports.Message) error { return err }
}

// relaying is a relay at work within a bubble.
type relaying struct {
	*outbox.Relay
	next *next
	log  *bytes.Buffer
	stop func()
}

// relay starts a relay named "irc" to a transport that fails so, nil for one that does not. stop must be called before the bubble ends, and before the log is read.
func relay(t *testing.T, db *sql.DB, fail func(transports.Message) error) relaying {
	t.Helper()
	r := relaying{next: &next{fail: fail}, log: &bytes.Buffer{}}
	r.Relay = outbox.NewRelay(outbox.Options{DB: db, Name: "irc", Transport: r.next, Caps: limits, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	r.stop = func() {
		end := errors.New("end")
		cancel(end)
		if err := <-done; !errors.Is(err, end) {
			t.Errorf("Run returned %v, want its context's cause", err)
		}
	}
	go func() { done <- r.Run(ctx) }()
	return r
}

// logged returns the log's messages and errors.
func (r relaying) logged() (lines []string) {
	for line := range strings.Lines(r.log.String()) {
		_, rest, _ := strings.Cut(line, "msg=")
		msg, _, _ := strings.Cut(rest, " next=")
		lines = append(lines, strings.TrimSpace(msg))
	}
	return lines
}

// inBubble runs f in a bubble whose clock jumps when all wait.
func inBubble(t *testing.T, f func(t *testing.T, db *sql.DB)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, open(t)) })
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}
