package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

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
