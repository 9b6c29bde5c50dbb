package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// An Entry is what is to be announced.
type Entry struct {
	Module event.Module
	Kind   event.Kind    // Change or Flip
	Set    event.PathSet // nil (Change only): anything may have changed

	NotBefore time.Duration // as in event.Announcement
	Was       uint32        // likewise
	Expires   time.Duration

	Principal string // who asked, for the log
	Source    string // what saw the change, for the log

	Ends *End // the compose whose gathered names Set is about, nil if none

	// Seen is where the module stood before anybody looked at what Set says of the tree, nil if nobody did. What was announced since may be newer than Set.
	Seen *State
}

// A Stored is one announcement of the journal.
type Stored struct {
	Announcement event.Announcement
	Line         []byte
	Digest       event.Digest // of Line
	Set          []byte       // compressed path set, see envelope.PathSet; nil if there is none
	Created      time.Time    // Announcement.At to the millisecond
	Records      int          // in the path set
	Principal    string
	Source       string
}

// Appended is what Append has stored.
type Appended = Stored

// Body is the message, and the journal file, that carries the announcement with its path set.
func (s Stored) Body() []byte { return envelope.Encode(s.Line, s.Set) }

// A request is an entry on its way into a transaction.
type request struct {
	entry  Entry
	packed []byte
	digest event.Digest

	done   chan struct{} // closed when the rest is set
	result Appended
	err    error
}

// Append announces e: when it returns nil, e has the next serial of its module and is durable. Calls that come while another one is being committed
// go together into the next transaction; each has its own outcome. Once the commit has begun it is not given up when ctx ends. A change that comes while a
// compose is under way, and does not end it, is refused with an error that Is ErrComposing; one whose Set overlaps with what was announced after Seen,
// with one that Is ErrOvertaken.
func (j *Journal) Append(ctx context.Context, e Entry) (Appended, error) {
	r, err := prepare(e)
	if err != nil {
		return Appended{}, err
	}
	j.enqueue(r)
	select {
	case <-r.done:
	case <-ctx.Done():
		if j.withdraw(r) {
			return Appended{}, context.Cause(ctx)
		}
		<-r.done
	case j.lead <- struct{}{}:
		j.commit(context.WithoutCancel(ctx), j.takeQueue())
		<-j.lead
		<-r.done
	}
	return r.result, r.err
}

// prepare does all that needs no serial, so that it is done side by side.
func prepare(e Entry) (*request, error) {
	r := &request{entry: e, done: make(chan struct{})}
	if err := e.check(); err != nil {
		return nil, fault.With(fmt.Errorf("announce in %s: %w: %w", e.Module, ErrRefused, err), fault.Usage, "nothing was announced")
	}
	if e.Set == nil {
		return r, nil
	}
	canonical := e.Set.Encode()
	r.packed, r.digest = envelope.Compress(canonical), event.Sum(canonical)
	if len(canonical) > event.MaxSetBytes || len(r.packed) > envelope.MaxSet {
		return nil, fault.With(fmt.Errorf("announce in %s: %w: path set of %d bytes, at most %d", e.Module, ErrRefused, len(canonical), event.MaxSetBytes),
			fault.Usage, "announce directories in place of their entries; nothing was announced")
	}
	return r, nil
}

func (e Entry) check() error {
	switch {
	case e.Kind != event.Change && e.Kind != event.Flip:
		return fmt.Errorf("kind %q", e.Kind)
	case e.Set != nil && len(e.Set) == 0:
		return errors.New("the path set is empty")
	case e.Kind == event.Flip && e.Set == nil:
		return errors.New("a flip needs a path set")
	case (e.Kind == event.Change || e.NotBefore == 0) && e.Was != 0, e.Kind == event.Change && (e.NotBefore != 0 || e.Expires != 0):
		return errors.New("only a flip can wait or expire")
	}
	for _, r := range e.Set {
		if e.Kind == event.Flip && r.Op != event.Meta {
			return fmt.Errorf("path %.200q: op %c in a flip", r.Path, r.Op)
		}
		if r.Serial != 0 {
			return fmt.Errorf("path %.200q: only a manifest states serials", r.Path)
		}
	}
	return e.Set.Check()
}

func (j *Journal) enqueue(r *request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = append(j.queue, r)
}

// maxGroup bounds what one transaction takes, so that the first of a crowd does not wait for the last.
const maxGroup = 256

func (j *Journal) takeQueue() []*request {
	j.mu.Lock()
	defer j.mu.Unlock()
	taken := j.queue
	j.queue = nil
	return taken
}

// withdraw takes r back if nobody has begun to commit it.
func (j *Journal) withdraw(r *request) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, q := range j.queue {
		if q == r {
			j.queue = append(j.queue[:i:i], j.queue[i+1:]...)
			return true
		}
	}
	return false
}

// commit stores all requests, in groups, and tells each its outcome.
func (j *Journal) commit(ctx context.Context, all []*request) {
	for len(all) > 0 {
		group := all[:min(len(all), maxGroup)]
		all = all[len(group):]
		err := sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
			for _, r := range group {
				if err := j.one(ctx, tx, r); err != nil {
					return err
				}
			}
			failpoint.Here("journal.commit")
			return nil
		})
		if err != nil {
			j.spoken.forget()
		}
		for _, r := range group {
			if err != nil && r.err == nil {
				r.result, r.err = Appended{}, wrap(err, "journal of module %s", r.entry.Module)
			}
			close(r.done)
		}
	}
}

// one stores r within a savepoint: what is wrong with r alone becomes r.err, and the others go on. Its own error ends the transaction.
func (j *Journal) one(ctx context.Context, tx *sql.Tx, r *request) error {
	if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	r.result, r.err = j.store(ctx, tx, r)
	if r.err != nil {
		r.err = wrap(r.err, "announce in %s", r.entry.Module)
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return errors.Join(r.err, err) // a full disk has ended the whole transaction
		}
	}
	_, err := tx.ExecContext(ctx, "RELEASE one")
	return err
}

func (j *Journal) store(ctx context.Context, tx *sql.Tx, r *request) (Appended, error) {
	st, err := state(ctx, tx, r.entry.Module)
	if err != nil {
		return Appended{}, err
	}
	if st.Restored != "" {
		return Appended{}, restored(r.entry.Module, st.Restored)
	}
	if err := r.entry.admit(ctx, tx, j.o.Now()); err != nil {
		return Appended{}, err
	}
	if err := j.overtaken(ctx, tx, st, r.entry); err != nil {
		return Appended{}, err
	}
	a, err := j.seal(st, r)
	if err != nil {
		return Appended{}, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO entry (module, epoch, serial, size, created, records, principal, source, line, packed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		st.Module, st.Epoch, a.Announcement.Serial, len(a.Line)+len(a.Set), a.Created.UnixMilli(), a.Records, a.Principal, a.Source, a.Line, a.Set)
	if err == nil {
		_, err = tx.ExecContext(ctx, "UPDATE module SET serial = ?, last = ? WHERE module = ?", a.Announcement.Serial, a.Digest[:], st.Module)
	}
	if err == nil && j.o.Outbox != nil {
		err = j.o.Outbox(ctx, tx, a)
	}
	if err == nil {
		j.spoken.add(a.Announcement, r.entry.Set)
	}
	return a, err
}

// seal makes the next line of the module, and reads it back: a line that mirrors cannot read must not take a serial.
func (j *Journal) seal(st State, r *request) (Appended, error) {
	e, now := r.entry, j.o.Now()
	line, err := event.Seal(event.Announcement{
		Kind: e.Kind, Module: e.Module, Epoch: st.Epoch, Serial: st.Serial + 1, At: now.UTC().Truncate(time.Second), Prev: st.Last,
		Set: r.digest, Count: len(e.Set), NotBefore: e.NotBefore, Was: e.Was, Expires: e.Expires,
	}, j.o.Signer)
	if err != nil {
		return Appended{}, err
	}
	read, err := event.Read(line)
	if err != nil {
		return Appended{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return Appended{Announcement: *read.Announcement, Line: line, Digest: read.Digest, Set: r.packed, Created: now, Records: len(e.Set),
		Principal: e.Principal, Source: e.Source}, nil
}
