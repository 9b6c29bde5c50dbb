package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

func TestRetriesUntilItGoes(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		e := entry(fedora, "1")
		e.At = time.Now().Add(-time.Hour)
		put(t, db, []string{"irc"}, e, entry(fedora, "2"))
		r := relay(t, db, failing(transports.ErrNotConnected))
		began := time.Now()
		time.Sleep(3 * time.Hour)
		if tries := len(r.next.attempts()); tries < 180 || tries > 720 {
			t.Errorf("tried %d times in 3 hours, want about once in 30 s", tries)
		}
		s := stat(t, db)
		if s.Waiting != 2 || s.Err != "publish on announce/fedora: not connected" || s.Next.Before(time.Now().Add(-time.Millisecond)) ||
			s.Since.Sub(began).Abs() > time.Second || s.Oldest.Sub(e.At).Abs() > time.Millisecond {
			t.Errorf("stat is %+v", s)
		}
		r.next.set(failing(errors.New("flooding")))
		time.Sleep(time.Hour)
		r.next.set(nil)
		time.Sleep(time.Hour)
		if all, err := outbox.Stats(t.Context(), db); err != nil || len(all) > 0 {
			t.Errorf("stats are %+v, %v after all was sent; want none", all, err)
		}
		r.stop()
		want(t, "sent", r.next.received(), "announce/fedora 1", "announce/fedora 2")
		want(t, "log", r.logged(),
			`"cannot send, trying again" error="publish on announce/fedora: not connected"`,
			`"cannot send, trying again" error="publish on announce/fedora: flooding"`,
			`"sending again"`)
	})
}

func TestWaitsGrowToTheLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"))
		r := relay(t, db, failing(transports.ErrNotConnected))
		time.Sleep(time.Hour)
		tries := r.next.attempts()
		for i, limit := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			if wait := tries[i+1].Sub(tries[i]); wait > limit*time.Second+time.Millisecond {
				t.Errorf("wait %d is %v, want at most %d s", i, wait, limit)
			}
		}
		before := len(tries)
		r.Connected()
		synctest.Wait()
		again := r.next.attempts()
		if len(again) != before+1 {
			t.Fatalf("tried %d times when the transport connected, want once", len(again)-before)
		}
		time.Sleep(time.Second + time.Millisecond)
		if later := r.next.attempts(); len(later) == len(again) {
			t.Error("the first wait after the transport has connected is longer than the shortest")
		}
		r.stop()
	})
}

func TestWakeDoesNotHammerWhatIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"))
		r := relay(t, db, failing(transports.Permanent(transports.ErrNotConnected)))
		synctest.Wait()
		for range 59 {
			r.Wake()
			time.Sleep(time.Second)
		}
		if n := len(r.next.attempts()); n != 1 {
			t.Errorf("tried %d times within the longest wait after a permanent error, want once", n)
		}
		r.stop()
	})
}

func TestOneTopicDoesNotHoldOthers(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		for i := range 250 { // more than are read at once
			put(t, db, []string{"irc"}, entry(fedora, fmt.Sprint(i)))
		}
		put(t, db, []string{"irc"}, entry(debian, "1"))
		r := relay(t, db, func(m transports.Message) error {
			if m.Topic == fedora {
				return errors.New("not allowed")
			}
			return nil
		})
		synctest.Wait()
		want(t, "sent", r.next.received(), "announce/debian 1")
		tries := len(r.next.attempts())
		put(t, db, []string{"irc"}, entry(debian, "2"))
		r.Wake()
		synctest.Wait()
		want(t, "sent", r.next.received(), "announce/debian 1", "announce/debian 2")
		if n := len(r.next.attempts()) - tries; n != 1 {
			t.Errorf("tried %d messages when woken, want only that of the topic that goes", n)
		}
		if s := stat(t, db); s.Err == "" || s.Waiting != 250 {
			t.Errorf("stat is %+v, want the error of the topic that does not go", s)
		}
		r.next.set(nil)
		time.Sleep(2 * time.Second)
		r.stop()
		got := r.next.received()[2:]
		if len(got) != 250 || got[0] != "announce/fedora 0" || got[249] != "announce/fedora 249" {
			t.Errorf("sent %d later, want all 250 in order: %.3q", len(got), got)
		}
	})
}

func TestSecondTopicThatFailsDoesNotPostponeTheFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"))
		r := relay(t, db, func(m transports.Message) error {
			return transports.Permanent(errors.New("not allowed on " + m.Topic.Module))
		})
		synctest.Wait()
		first := stat(t, db)
		time.Sleep(30 * time.Second)
		put(t, db, []string{"irc"}, entry(debian, "2"))
		r.Wake()
		synctest.Wait()
		first.Waiting++
		if s := stat(t, db); s != first || len(r.next.attempts()) != 2 {
			t.Errorf("after %d attempts the stat is %+v, want both tried and %+v", len(r.next.attempts()), s, first)
		}
		r.stop()
	})
}

func TestAMessageThatFailsHoldsUpThoseBehindIt(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"), entry(fedora, "2"), entry(fedora, "3"))
		tries := 0
		r := relay(t, db, func(m transports.Message) error {
			if tries++; tries <= 2 && string(m.Body) == "1" {
				return errors.New("flooding")
			}
			return nil
		})
		time.Sleep(time.Minute)
		r.stop()
		want(t, "sent", r.next.received(), "announce/fedora 1", "announce/fedora 2", "announce/fedora 3")
	})
}

// silent is a transport that never answers.
type silent struct{}

func (silent) Publish(ctx context.Context, _ transports.Message) error {
	<-ctx.Done()
	return errors.New("interrupted")
}

func TestPublishIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"), entry(debian, "2"))
		r := outbox.NewRelay(outbox.Options{DB: db, Name: "irc", Transport: silent{}, Caps: limits})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second+time.Millisecond)
		defer cancel()
		if err := r.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if s := stat(t, db); s.Err != "publish on announce/fedora: no answer within 30s" {
			t.Errorf("stat is %+v", s)
		}
	})
}

// ending is a transport that ends the relay while it takes a message.
type ending struct {
	next
	end context.CancelFunc
}

func (e *ending) Publish(ctx context.Context, m transports.Message) error {
	e.end()
	return e.next.Publish(ctx, m)
}

func TestWhatWasSentIsForgottenEvenAtTheEnd(t *testing.T) {
	db := open(t)
	put(t, db, []string{"irc"}, entry(fedora, "1"), entry(fedora, "2"))
	for i := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		e := &ending{end: cancel}
		if err := outbox.NewRelay(outbox.Options{DB: db, Name: "irc", Transport: e, Caps: limits}).Run(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		want(t, "sent", e.received(), fmt.Sprintf("announce/fedora %d", i+1))
	}
	if n := count(t, db, "SELECT count(*) FROM outbox_waiting"); n != 0 {
		t.Errorf("%d messages wait, want none", n)
	}
}

// TestDatabaseThatCannotBeWritten: what was sent is not sent again just because it cannot be forgotten.
func TestDatabaseThatCannotBeWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		put(t, db, []string{"irc"}, entry(fedora, "1"))
		if _, err := db.ExecContext(t.Context(), "PRAGMA query_only = 1"); err != nil {
			t.Fatal(err)
		}
		r := relay(t, db, nil)
		time.Sleep(time.Hour)
		if _, err := db.ExecContext(t.Context(), "PRAGMA query_only = 0"); err != nil {
			t.Fatal(err)
		}
		put(t, db, []string{"irc"}, entry(fedora, "2"))
		time.Sleep(time.Hour)
		r.stop()
		want(t, "sent", r.next.received(), "announce/fedora 1", "announce/fedora 2")
		want(t, "log", r.logged(),
			`"cannot send, trying again" error="outbox: forget what was sent: attempt to write a readonly database (8)"`, `"sending again"`)
	})
}

// ended tells when it has been sent everything.
type ended struct {
	next
	all  int
	done context.CancelFunc
}

func (e *ended) Publish(ctx context.Context, m transports.Message) error {
	err := e.next.Publish(ctx, m)
	if len(e.next.tries) == e.all {
		e.done()
	}
	return err
}

func TestManyDrainFast(t *testing.T) {
	const n = 10_000
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), sqlite.Options{Durability: sqlite.Full, Schema: []sqlite.Component{outbox.Schema()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	var entries []outbox.Entry
	for i := range n {
		entries = append(entries, entry(fedora, fmt.Sprint(i)))
	}
	put(t, db, []string{"irc"}, entries...)
	ctx, cancel := context.WithCancel(t.Context())
	e := &ended{all: n, done: cancel}
	began := time.Now()
	if err := outbox.NewRelay(outbox.Options{DB: db, Name: "irc", Transport: e, Caps: limits}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	t.Logf("%d messages in %v", n, time.Since(began))
	for i, got := range e.received() {
		if got != fmt.Sprintf("announce/fedora %d", i) {
			t.Fatalf("message %d is %q", i, got)
		}
	}
	if left := count(t, db, "SELECT (SELECT count(*) FROM outbox_waiting) + (SELECT count(*) FROM outbox_message)"); left != 0 {
		t.Errorf("%d rows are left", left)
	}
}
