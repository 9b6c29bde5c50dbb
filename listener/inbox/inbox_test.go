package inbox_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

func TestAnnouncementIsKeptUntilItIsFinished(t *testing.T) {
	dir := t.TempDir()
	b, c := open(t, dir), &chain{t: t, epoch: epoch}
	one, two, three := c.next(event.Change), c.next(event.Flip), c.next(event.Change)
	put(t, b, inbox.Stored, one)
	finish(t, b, one)
	put(t, b, inbox.Stored, three, two)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = open(t, dir)
	s := look(t, b)
	if s.Epoch != epoch || s.Applied != 1 || s.Digest != one.Digest || s.Through != 3 || s.Top != 3 || len(s.Todo) != 2 || len(s.Flips) != 1 {
		t.Fatalf("%+v", s)
	}
	rows, err := b.Batch(t.Context(), mod, s.Through, 1<<20)
	if d := cmp.Diff([]inbox.Heard{two, three}, rows); err != nil || d != "" {
		t.Fatal(err, d)
	}
	if rows, err := b.Batch(t.Context(), mod, s.Through, 1); err != nil || len(rows) != 1 {
		t.Errorf("%d rows in a small batch, want 1: %v", len(rows), err)
	}
	if !finish(t, b, two) {
		t.Error("nothing more, want serial 3")
	}
	if finish(t, b, three) {
		t.Error("more, want nothing")
	}
	var said []string
	last := uint64(time.Now().Add(-time.Hour).UnixMilli()) // so that a mirror that was set up anew counts on from its former self
	for i, r := range sent(t, b) {
		if r.Run <= last {
			t.Errorf("report %d has run %d after %d", i, r.Run, last)
		}
		last = r.Run
		said = append(said, string(r.Outcome)+" "+time.Duration(r.Serial).String()+" of "+time.Duration(r.Applied).String()+" "+hexOf(r.Head))
	}
	none, d1, d2, d3 := hexOf(event.Digest{}), hexOf(one.Digest), hexOf(two.Digest), hexOf(three.Digest)
	want := []string{"received 1ns of 0s " + none, "applied 1ns of 1ns " + d1, "received 3ns of 1ns " + d1, "received 2ns of 1ns " + d1,
		"applied 2ns of 2ns " + d2, "applied 3ns of 3ns " + d3}
	if d := cmp.Diff(want, said); d != "" {
		t.Error(d)
	}
}

func TestVerdicts(t *testing.T) {
	c := &chain{t: t, epoch: epoch}
	one, two, three, four := c.next(event.Change), c.next(event.Change), c.next(event.Change), c.next(event.Change)
	forged := two.Announcement
	forged.Count = 7
	orphan := three.Announcement
	orphan.Prev = event.Sum([]byte("another history"))
	far := three.Announcement
	far.Serial = 2 + inbox.MaxAhead + 1
	edge := far
	edge.Serial--
	other := (&chain{t: t, epoch: "00000001"}).next(event.Change)

	for name, test := range map[string]struct {
		put  inbox.Heard
		want inbox.Verdict
	}{
		"next":               {three, inbox.Stored},
		"one after":          {four, inbox.Stored},
		"twice":              {two, inbox.Repeated},
		"applied":            {one, inbox.Old},
		"forked":             {sealed(t, forged), inbox.Equivocation},
		"no follower of two": {sealed(t, orphan), inbox.Equivocation},
		"fast-forward":       {sealed(t, far), inbox.TooFar},
		"far but not beyond": {sealed(t, edge), inbox.Stored},
		"other epoch":        {other, inbox.Strange},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, t.TempDir())
			put(t, b, inbox.Stored, one)
			finish(t, b, one)
			put(t, b, inbox.Stored, two)
			put(t, b, test.want, test.put)
			s := look(t, b)
			if (s.Quarantine != "") != (test.want == inbox.Equivocation) {
				t.Errorf("quarantine %q", s.Quarantine)
			}
			if s.Applied != 1 {
				t.Errorf("applied %d, want 1", s.Applied)
			}
		})
	}
}

func TestRepeatedThousandTimesIsStoredOnce(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	one := c.next(event.Change)
	put(t, b, inbox.Stored, one)
	for range 1000 {
		put(t, b, inbox.Repeated, one)
	}
	if n := len(sent(t, b)); n != 1 {
		t.Errorf("%d reports, want 1", n)
	}
}

// Many at once are as each by itself. One that contradicts what is known ends them.
func TestManyAreStoredAtOnce(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	finish(t, b, c.next(event.Change))
	all := []inbox.Heard{c.next(event.Change), c.next(event.Change), c.next(event.Change)}
	put(t, b, inbox.Stored, all[1])
	got, err := b.PutAll(t.Context(), all)
	if want := []inbox.Verdict{inbox.Stored, inbox.Repeated, inbox.Stored}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if s := look(t, b); s.Through != 4 {
		t.Errorf("%+v", s)
	}
	forged := all[2].Announcement
	forged.Count = 5
	got, err = b.PutAll(t.Context(), []inbox.Heard{all[0], sealed(t, forged), c.next(event.Change)})
	if want := []inbox.Verdict{inbox.Repeated, inbox.Equivocation}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if s := look(t, b); s.Quarantine == "" || s.Through != 4 {
		t.Errorf("%+v", s)
	}
}

func TestSetThatComesLaterIsKept(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	one, two := c.next(event.Change), c.next(event.Change)
	finish(t, b, one)
	bare := two
	bare.Set = nil
	put(t, b, inbox.Stored, bare)
	if s := look(t, b); s.Todo[0].Set {
		t.Fatalf("%+v", s)
	}
	put(t, b, inbox.Repeated, two)
	if s := look(t, b); !s.Todo[0].Set || s.Through != 2 {
		t.Fatalf("%+v", s)
	}
}

func TestGapEndsTheRow(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	one := c.next(event.Change)
	finish(t, b, one)
	c.next(event.Change)
	put(t, b, inbox.Stored, c.next(event.Change))
	if s := look(t, b); s.Through != 1 || s.Top != 3 || !s.Oldest.Equal(start) {
		t.Fatalf("%+v", s)
	}
}

func TestHeads(t *testing.T) {
	c := &chain{t: t, epoch: epoch}
	one, two, three := c.next(event.Change), c.next(event.Change), c.next(event.Change)
	for name, test := range map[string]struct {
		head inbox.Head
		want inbox.Verdict
	}{
		"newer":               {headOf(t, epoch, 3, three.Digest, start), inbox.Stored},
		"same, signed later":  {headOf(t, epoch, 2, two.Digest, start.Add(time.Minute)), inbox.Stored},
		"same, signed before": {headOf(t, epoch, 2, two.Digest, start.Add(-time.Minute)), inbox.Old},
		"rolled back":         {headOf(t, epoch, 1, one.Digest, start.Add(time.Hour)), inbox.Old},
		"forked":              {headOf(t, epoch, 2, three.Digest, start.Add(time.Minute)), inbox.Equivocation},
		"new epoch":           {headOf(t, "00000001", 1, one.Digest, start.Add(time.Minute)), inbox.Strange},
		"old epoch":           {headOf(t, "00000001", 9, one.Digest, start.Add(-time.Minute)), inbox.Old},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, t.TempDir())
			finish(t, b, one)
			if v, err := b.PutHead(t.Context(), headOf(t, epoch, 2, two.Digest, start)); err != nil || v != inbox.Stored {
				t.Fatal(v, err)
			}
			if v, err := b.PutHead(t.Context(), test.head); err != nil || v != test.want {
				t.Fatalf("%s %v, want %s", v, err, test.want)
			}
			if s := look(t, b); (s.Quarantine != "") != (test.want == inbox.Equivocation) || s.Applied != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAnnouncementThatAHeadNamedIsStored(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	finish(t, b, c.next(event.Change))
	two := c.next(event.Change)
	if v, err := b.PutHead(t.Context(), headOf(t, epoch, 2, two.Digest, start)); err != nil || v != inbox.Stored {
		t.Fatal(v, err)
	}
	put(t, b, inbox.Stored, two)
	put(t, b, inbox.Repeated, two)
}

func TestNewEpochForgetsTheOldOne(t *testing.T) {
	b, c, d := open(t, t.TempDir()), &chain{t: t, epoch: epoch}, &chain{t: t, epoch: "00000001"}
	finish(t, b, c.next(event.Change))
	put(t, b, inbox.Stored, c.next(event.Change))
	first, second := d.next(event.Change), d.next(event.Change)
	put(t, b, inbox.Strange, first, second)
	if s := look(t, b); !s.Strange || s.Through != 2 {
		t.Fatalf("%+v", s)
	}
	if !finish(t, b, first) {
		t.Error("nothing more, want serial 2 of the new epoch")
	}
	if s := look(t, b); s.Strange || s.Epoch != "00000001" || s.Applied != 1 || s.Through != 2 {
		t.Errorf("%+v", s)
	}
}

func TestAppliedNeverGoesBack(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	one := c.next(event.Change)
	finish(t, b, c.next(event.Change))
	if _, err := b.Finish(t.Context(), inbox.Done{Module: mod, Epoch: epoch, Through: 1, Digest: one.Digest}); err == nil {
		t.Error("applied went from 2 to 1")
	}
}

func TestRetentionIsBounded(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	for range 30 {
		h := c.next(event.Change)
		put(t, b, inbox.Stored, h)
		finish(t, b, h)
	}
	var rows, sets int
	if err := b.DB().QueryRow("SELECT COUNT(*), COUNT(paths) FROM heard").Scan(&rows, &sets); err != nil || rows != 10 || sets != 0 {
		t.Errorf("%d rows and %d path sets are kept, want 10 and 0: %v", rows, sets, err)
	}
}

func TestTroubleConfirmRelease(t *testing.T) {
	b, c := open(t, t.TempDir()), &chain{t: t, epoch: epoch}
	one, two := c.next(event.Change), c.next(event.Change)
	finish(t, b, one)
	put(t, b, inbox.Stored, two)
	held := inbox.Trouble{Kind: "held", Error: "900 of 1000 would be deleted", Path: "pool/\xff", Through: 2, Since: start, Attempts: 1}
	if err := b.Fail(t.Context(), mod, held, &event.Report{Module: mod, Epoch: epoch, Serial: 2, Outcome: event.Blocked, Error: held.Error}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(held, look(t, b).Trouble); d != "" {
		t.Fatal(d)
	}
	if ok, err := b.Confirm(t.Context(), mod, "held"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if s := look(t, b); s.Confirmed != 2 || s.Trouble != (inbox.Trouble{}) {
		t.Errorf("%+v", s)
	}
	if ok, err := b.Confirm(t.Context(), mod, "held"); ok || err != nil {
		t.Error("confirmed twice", err)
	}
	forged := two.Announcement
	forged.Count = 5
	put(t, b, inbox.Equivocation, sealed(t, forged))
	if ok, err := b.Release(t.Context(), mod); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if s := look(t, b); s.Quarantine != "" || s.Epoch != "" || s.Applied != 0 || s.Head != nil {
		t.Errorf("%+v", s)
	}
	put(t, b, inbox.Stored, sealed(t, forged))
}

// Of a module that is new here, what is held has no serial. The word that lets it go on is used up when it is done.
func TestAWordForOneAdoptionIsForNoOther(t *testing.T) {
	b := open(t, t.TempDir())
	held := inbox.Trouble{Kind: "held", Error: "900 of 1000 would be deleted", Since: start, Attempts: 1}
	if err := b.Fail(t.Context(), mod, held, nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.Confirm(t.Context(), mod, "held"); !ok || err != nil || !look(t, b).Push.Confirmed {
		t.Fatal(ok, err, look(t, b).Push)
	}
	if _, err := b.Finish(t.Context(), inbox.Done{Module: mod, Epoch: epoch, At: start}); err != nil {
		t.Fatal(err)
	}
	if s := look(t, b); s.Push.Confirmed || s.Epoch != epoch {
		t.Errorf("%+v", s)
	}
}

func TestBudgetsAndHave(t *testing.T) {
	b := open(t, t.TempDir())
	left := inbox.Bucket{Tokens: 1.5, At: start}
	if err := b.Spend(t.Context(), mod, "full", left); err != nil {
		t.Fatal(err)
	}
	if got := look(t, b).Budgets["full"]; got != left {
		t.Errorf("%+v", got)
	}
	msg, err := b.Have(t.Context(), event.Report{Module: mod})
	if err != nil {
		t.Fatal(err)
	}
	s, err := event.Read(msg.Body)
	if err != nil || s.Report.Outcome != event.Have || s.Report.Epoch != inbox.NoEpoch || s.Report.Run == 0 {
		t.Errorf("%s %v", msg.Body, err)
	}
}
