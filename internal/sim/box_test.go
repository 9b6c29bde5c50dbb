package sim

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/transports"
)

// The box that the simulation keeps in memory and the inbox in its database come to the same verdicts and the same state, whatever comes.
func TestBoxIsAnInbox(t *testing.T) {
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	lines := history(t, key)
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			db, b := openInbox(t), newBox(base)
			for step := range 80 {
				at := base.Add(time.Duration(step) * time.Second)
				feed(t, r, db, b, lines, at)
				compareStates(t, db, b, step)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// history are announcements of two epochs, among them flips and one other line for a serial.
func history(t *testing.T, key ssh.Signer) (lines []inbox.Heard) {
	t.Helper()
	for _, e := range []event.Epoch{"00000001", "00000002"} {
		var prev event.Digest
		for n := event.Serial(1); n <= 12; n++ {
			a := event.Announcement{Kind: event.Change, Module: module, Epoch: e, Serial: n, At: base, Prev: prev, Set: event.Sum([]byte("s")), Count: 1}
			if n%4 == 0 {
				a.Kind, a.Count = event.Flip, 0
			}
			line, err := event.Seal(a, key)
			if err != nil {
				t.Fatal(err)
			}
			prev = event.Sum(line)
			lines = append(lines, inbox.Heard{Announcement: a, Line: line, Digest: prev, Set: []byte("set"), Via: "hub"})
		}
	}
	return lines
}

// feed does one thing to both.
func feed(t *testing.T, r *rand.Rand, db *inbox.Inbox, b *box, lines []inbox.Heard, at time.Time) {
	t.Helper()
	h := lines[r.IntN(len(lines))]
	h.At = at
	if r.IntN(3) == 0 {
		h.Set = nil
	}
	var want, got inbox.Verdict
	var err error
	switch r.IntN(6) {
	case 0, 1, 2:
		want, err = db.Put(t.Context(), h, nil)
		got = b.put(h)
	case 3:
		head := inbox.Head{Head: event.Head{Module: module, Epoch: h.Epoch, Serial: h.Serial, At: at, TTL: time.Minute, Last: h.Digest}, At: at, Via: "hub"}
		head.Line = fakeHead(t, head.Head)
		want, err = db.PutHead(t.Context(), head)
		got = b.putHead(head)
	case 4:
		if h.Epoch == b.m.Epoch && h.Serial < b.m.Applied || h.Kind == event.Flip {
			return
		}
		d := inbox.Done{Module: module, Epoch: h.Epoch, Through: h.Serial, Digest: h.Digest, At: at}
		if n := h.Serial / 4 * 4; n > 0 && n > b.m.Applied && b.find(h.Epoch, n) != nil && b.m.Epoch == h.Epoch && !b.find(h.Epoch, n).Done && b.find(h.Epoch, n-1) != nil {
			d.Except = []event.Serial{n}
		}
		_, err = db.Finish(t.Context(), d)
		b.finish(d)
	case 5:
		if row := b.find(h.Epoch, h.Serial); h.Kind != event.Flip || row == nil || row.Done || h.Epoch != b.m.Epoch {
			return
		}
		err = db.Flip(t.Context(), h, false, at, event.Report{Module: module, Epoch: h.Epoch, Serial: h.Serial, Outcome: event.Applied}, nil)
		b.flip(h.Epoch, h.Serial, false, at)
	}
	if err != nil || want != got {
		t.Errorf("serial %d of %s: the inbox says %q (%v), the box %q", h.Serial, h.Epoch, want, err, got)
	}
}

func fakeHead(t *testing.T, h event.Head) []byte {
	t.Helper()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	line, err := event.Seal(h, key)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// compareStates compares what a decision is made from.
func compareStates(t *testing.T, db *inbox.Inbox, b *box, step int) {
	t.Helper()
	want, err := db.Look(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	got := b.look()
	for _, s := range []*inbox.Snapshot{&want, &got} {
		s.Strange, s.Flips, s.Budgets = false, nil, nil
		if s.Quarantine != "" {
			s.Quarantine = "quarantined"
		}
		if s.Head != nil {
			s.Head = &inbox.Head{Head: s.Head.Head, At: s.Head.At, Via: s.Head.Via}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after step %d (inbox -, box +):\n%s", step, diff)
	}
}

func openInbox(t *testing.T) *inbox.Inbox {
	t.Helper()
	b, err := inbox.Open(t.Context(), t.TempDir(), inbox.Options{
		Seal:    func(event.Report) (transports.Message, error) { return transports.Message{}, nil },
		Enqueue: func(context.Context, *sql.Tx, transports.Message) error { return nil },
		Keep:    keep,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.Ensure(t.Context(), base, module); err != nil {
		t.Fatal(err)
	}
	return b
}
