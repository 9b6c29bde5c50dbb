package outbox_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), sqlite.Options{Durability: sqlite.Normal, Schema: []string{outbox.Schema}})
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

func TestPutRefuses(t *testing.T) {
	db := open(t)
	short := entry(fedora, "x")
	short.Short = []byte{}
	noID := entry(fedora, "x")
	noID.ID = ""
	for says, e := range map[string]outbox.Entry{
		"message has no body":                 entry(fedora, ""),
		"message id":                          noID,
		"short form of a message":             short,
		"unknown kind":                        entry(transports.Topic{Module: "fedora"}, "x"),
		`module name "A": must be 1 to 60 of`: entry(transports.Topic{Kind: transports.Report, Module: "A"}, "x"),
	} {
		err := sqlite.Tx(t.Context(), db, func(tx *sql.Tx) error { return outbox.Put(t.Context(), tx, e, []string{"irc"}) })
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error is %v, want one that says %q", err, says)
		}
	}
	put(t, db, nil, entry(fedora, "for nobody"))
	if n := count(t, db, "SELECT count(*) FROM outbox_message"); n != 0 {
		t.Errorf("%d messages are stored, want none", n)
	}
}

func TestBodyGoesWithTheLastTransport(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc", "mail"}, entry(fedora, "body"))
		r := relay(t, db, nil)
		synctest.Wait()
		r.stop()
		want(t, "sent", r.next.received(), "announce/fedora body")
		if n := count(t, db, "SELECT count(*) FROM outbox_message"); n != 1 {
			t.Errorf("%d bodies are stored while one transport has to send it yet", n)
		}
		mail := outbox.NewRelay(outbox.Options{DB: db, Name: "mail", Transport: &next{}, Caps: limits})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := mail.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if n := count(t, db, "SELECT count(*) FROM outbox_message"); n != 0 {
			t.Errorf("%d bodies are stored though all have sent it", n)
		}
	})
}

func TestSendsInOrderAndWakes(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"), entry(debian, "2"), entry(fedora, "3"))
		r := relay(t, db, nil)
		defer r.stop()
		synctest.Wait()
		want(t, "sent", r.next.received(), "announce/fedora 1", "announce/debian 2", "announce/fedora 3")
		put(t, db, []string{"irc"}, entry(fedora, "4"))
		r.Wake()
		synctest.Wait()
		want(t, "sent", r.next.received()[3:], "announce/fedora 4")
	})
}

func TestLongAndShortForms(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		long := entry(fedora, "more than ten bytes")
		long.Short = []byte("short")
		none := entry(fedora, "more than ten bytes, and no short form")
		both := entry(fedora, "more than ten bytes")
		both.Short = []byte("also more than ten")
		surprise := entry(fedora, "too wide") // within MaxBody, but the transport finds otherwise
		surprise.Short = []byte("slim")
		put(t, db, []string{"irc"}, long, none, both, surprise, entry(fedora, "last"))
		r := relay(t, db, func(m transports.Message) error {
			if string(m.Body) == "too wide" {
				return fmt.Errorf("%w: it is wide", transports.ErrTooLarge)
			}
			return nil
		})
		synctest.Wait()
		s := stat(t, db)
		r.stop()
		want(t, "sent", r.next.received(), "announce/fedora short", "announce/fedora slim", "announce/fedora last")
		if n := strings.Count(r.log.String(), "message dropped"); n != 2 || s.Dropped != 2 || s.Waiting != 0 {
			t.Errorf("logged %d times, stat is %+v; want two dropped:\n%s", n, s, r.log)
		}
	})
}

func TestNewerReplacesUnsent(t *testing.T) {
	head := func(topic transports.Topic, body string) outbox.Entry {
		e := entry(topic, body)
		e.Replaces = "head"
		return e
	}
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc", "mail"}, head(fedora, "old head"), entry(fedora, "change"), head(debian, "its head"))
		put(t, db, []string{"irc"}, head(fedora, "new head"))
		r := relay(t, db, nil)
		synctest.Wait()
		r.stop()
		want(t, "sent", r.next.received(), "announce/fedora change", "announce/debian its head", "announce/fedora new head")
		if n := count(t, db, "SELECT count(*) FROM outbox_waiting WHERE transport = 'mail'"); n != 3 {
			t.Errorf("%d messages wait for the transport that the newer one is not for, want 3", n)
		}
	})
}

func TestForgetWhatNobodySends(t *testing.T) {
	db := open(t)
	put(t, db, []string{"irc", "mail"}, entry(fedora, "1"), entry(fedora, "2"))
	for _, c := range []struct {
		configured []string
		want       map[string]int
		bodies     int
	}{
		{[]string{"irc", "mail"}, map[string]int{}, 2},
		{[]string{"irc"}, map[string]int{"mail": 2}, 2},
		{nil, map[string]int{"irc": 2}, 0},
	} {
		var got map[string]int
		err := sqlite.Tx(t.Context(), db, func(tx *sql.Tx) (err error) {
			got, err = outbox.Forget(t.Context(), tx, c.configured)
			return err
		})
		if err != nil || !cmp.Equal(got, c.want) {
			t.Errorf("configured are %v: dropped %v, %v; want %v", c.configured, got, err, c.want)
		}
		if n := count(t, db, "SELECT count(*) FROM outbox_message"); n != c.bodies {
			t.Errorf("configured are %v: %d bodies are stored, want %d", c.configured, n, c.bodies)
		}
	}
}
