package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A State is where a module stands.
type State struct {
	Module event.Module
	Epoch  event.Epoch
	Serial event.Serial // of the newest announcement; 0 if there is none
	Last   event.Digest // of its line
	Floor  event.Serial // the oldest serial that is still in the journal, if there are any

	Manifest       event.Digest // of the index that is exported, zero if none
	ManifestSerial event.Serial
	ManifestAt     time.Time

	Restored string // why this epoch must not go on, "" if it may

	Hold    time.Time // until when a compose that is under way asks mirrors to wait; zero if none is
	Changed time.Time // when a compose last began or ended, in whole seconds: no head is signed for an earlier time
}

const stateColumns = `module, epoch, serial, last, floor, manifest, manifest_serial, manifest_at, restored,
	coalesce((SELECT until FROM compose WHERE compose.module = module.module AND ended = ''), 0), coalesce((SELECT changed FROM compose WHERE compose.module = module.module), 0)`

// querier is a database or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func state(ctx context.Context, q querier, m event.Module) (State, error) {
	st, err := scanState(q.QueryRowContext(ctx, "SELECT "+stateColumns+" FROM module WHERE module = ?", m))
	if errors.Is(err, sql.ErrNoRows) {
		err = fault.With(fmt.Errorf("%w: %q", ErrUnknownModule, m), fault.Usage, "create it with: mirrorbus init master")
	}
	return st, err
}

func scanState(row interface{ Scan(...any) error }) (State, error) {
	var st State
	var last, manifest []byte
	var at, hold, changed int64
	err := row.Scan(&st.Module, &st.Epoch, &st.Serial, &last, &st.Floor, &manifest, &st.ManifestSerial, &at, &st.Restored, &hold, &changed)
	copy(st.Last[:], last)
	copy(st.Manifest[:], manifest)
	if at != 0 {
		st.ManifestAt = time.Unix(at, 0)
	}
	if hold != 0 {
		st.Hold = time.UnixMilli(hold)
	}
	if changed != 0 {
		st.Changed = time.Unix(changed, 0)
	}
	return st, err
}

// State tells where a module stands. The error Is ErrUnknownModule if it is not there.
func (j *Journal) State(ctx context.Context, m event.Module) (State, error) {
	return state(ctx, j.db, m)
}

// Modules tells where each module stands, by name.
func (j *Journal) Modules(ctx context.Context) (all []State, err error) {
	rows, err := j.db.QueryContext(ctx, "SELECT "+stateColumns+" FROM module ORDER BY module")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		st, err := scanState(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, rows.Err()
}

const entryColumns = "line, packed, created, records, principal, source"

func scanEntry(row interface{ Scan(...any) error }) (Stored, error) {
	var s Stored
	var created int64
	if err := row.Scan(&s.Line, &s.Set, &created, &s.Records, &s.Principal, &s.Source); err != nil {
		return Stored{}, err
	}
	s.Created = time.UnixMilli(created)
	read, err := event.Read(s.Line)
	if err != nil {
		return Stored{}, err
	}
	if read.Announcement == nil {
		return Stored{}, fmt.Errorf("%w: a %s in the journal", event.ErrFormat, read.Kind)
	}
	s.Announcement, s.Digest = *read.Announcement, read.Digest
	return s, nil
}

// Get returns one announcement of the current epoch. The error Is ErrUnknownSerial or ErrTrimmed if it is not there.
func (j *Journal) Get(ctx context.Context, m event.Module, serial event.Serial) (Stored, error) {
	st, err := j.State(ctx, m)
	if err != nil {
		return Stored{}, err
	}
	s, err := scanEntry(j.db.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM entry WHERE module = ? AND epoch = ? AND serial = ?", m, st.Epoch, serial))
	switch {
	case errors.Is(err, sql.ErrNoRows) && serial > 0 && serial < st.Floor:
		err = ErrTrimmed
	case errors.Is(err, sql.ErrNoRows):
		err = ErrUnknownSerial
	}
	return s, wrap(err, "module %s serial %d", m, serial)
}

// Latest returns the newest announcement. The error Is ErrUnknownSerial if there is none yet.
func (j *Journal) Latest(ctx context.Context, m event.Module) (Stored, error) {
	st, err := j.State(ctx, m)
	if err != nil {
		return Stored{}, err
	}
	return j.Get(ctx, m, st.Serial)
}

// batchBytes bounds what Since reads at a time, so that it neither holds the database nor all path sets.
const batchBytes = 4 << 20

// Since yields what followed a serial of an epoch, oldest first, as of when each part is read. It ends with an error that Is ErrOtherEpoch if that epoch is
// not the current one, or ErrTrimmed if what followed directly is no longer there.
func (j *Journal) Since(ctx context.Context, m event.Module, epoch event.Epoch, serial event.Serial) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		for after := serial; ; {
			batch, err := j.batch(ctx, m, epoch, after)
			for _, s := range batch {
				if !yield(s, nil) {
					return
				}
				after = s.Announcement.Serial
			}
			if err != nil {
				yield(Stored{}, wrap(err, "module %s since serial %d of epoch %s", m, serial, epoch))
				return
			}
			if len(batch) == 0 {
				return
			}
		}
	}
}

func (j *Journal) batch(ctx context.Context, m event.Module, epoch event.Epoch, after event.Serial) (batch []Stored, err error) {
	st, err := j.State(ctx, m)
	switch {
	case err != nil:
		return nil, err
	case st.Epoch != epoch:
		return nil, fmt.Errorf("%w: the module is in epoch %s", ErrOtherEpoch, st.Epoch)
	case after >= st.Serial:
		return nil, nil
	case after+1 < st.Floor:
		return nil, fmt.Errorf("%w: it begins at serial %d", ErrTrimmed, st.Floor)
	}
	return j.entries(ctx, batchBytes, `SELECT `+entryColumns+` FROM entry WHERE module = ? AND epoch = ? AND serial > ? ORDER BY serial LIMIT 1000`, m, epoch, after)
}

// Log returns the newest announcements of a module before a serial (0: the newest of all), newest first, without their path sets.
func (j *Journal) Log(ctx context.Context, m event.Module, before event.Serial, limit int) ([]Stored, error) {
	st, err := j.State(ctx, m)
	if err != nil {
		return nil, err
	}
	if before == 0 {
		before = event.MaxSerial + 1
	}
	all, err := j.entries(ctx, 1<<62, `SELECT line, NULL, created, records, principal, source FROM entry WHERE module = ? AND epoch = ? AND serial < ?
		ORDER BY serial DESC LIMIT ?`, m, st.Epoch, before, limit)
	return all, wrap(err, "log of module %s", m)
}

// entries reads rows until they hold max bytes.
func (j *Journal) entries(ctx context.Context, max int, query string, args ...any) (all []Stored, err error) {
	rows, err := j.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for size := 0; size < max && rows.Next(); {
		s, err := scanEntry(rows)
		if err != nil {
			return nil, err
		}
		size += len(s.Line) + len(s.Set)
		all = append(all, s)
	}
	return all, rows.Err()
}

// Head signs where the module stands at now; it holds for ttl.
func (j *Journal) Head(ctx context.Context, m event.Module, ttl time.Duration, now time.Time) ([]byte, event.Head, error) {
	st, err := j.State(ctx, m)
	if err != nil {
		return nil, event.Head{}, err
	}
	return j.sealHead(st, ttl, now)
}

func (j *Journal) sealHead(st State, ttl time.Duration, now time.Time) ([]byte, event.Head, error) {
	if st.Restored != "" {
		return nil, event.Head{}, restored(st.Module, st.Restored)
	}
	at := st.signedAt(now)
	hold := st.hold(at)
	h := event.Head{Module: st.Module, Epoch: st.Epoch, Serial: st.Serial, At: at, TTL: st.ttl(ttl, hold), Last: st.Last, Manifest: st.Manifest, Hold: hold}
	line, err := event.Seal(h, j.o.Signer)
	if err == nil {
		_, err = event.Read(line)
	}
	return line, h, wrap(err, "head of module %s", st.Module)
}
