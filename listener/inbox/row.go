package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Module is where a module stands.
type Module struct {
	Name      event.Module
	Created   time.Time
	Epoch     event.Epoch  // "" until the tree was first compared with a manifest
	Applied   event.Serial // everything up to this serial is on disk
	Digest    event.Digest // of the line of serial Applied
	AppliedAt time.Time
	Entries   int64        // names in the module as far as known, 0 if not
	Confirmed event.Serial // an operator has allowed the deletions up to this serial

	Quarantine  string // why nothing runs, "" if nothing is wrong
	Quarantined time.Time

	Trouble Trouble
}

// A Trouble is what keeps a module from going on. Its zero value is none.
type Trouble struct {
	Kind     string // a word of package listener
	Error    string
	Path     string       // that the error is about, "" if it is about none
	Through  event.Serial // the last serial of the batch that met it
	Since    time.Time    // of the first of these failures
	Attempts int
	Next     time.Time // zero: not by itself
}

// Heard is an announcement as it was received.
type Heard struct {
	event.Announcement
	Line   []byte
	Digest event.Digest // of Line
	Set    []byte       // the compressed path set; nil if it did not come along
	At     time.Time    // by this host's clock
	Via    string       // the transport, or "journal"
	Done   bool         // perhaps ahead of its turn
	Ready  bool         // a flip whose "ready" was reported

	Overtaken map[string]bool // a flip's paths that what was announced after it, and is done, states anew; nil for none
}

// A Head is the newest head that was heard.
type Head struct {
	event.Head
	Line []byte
	At   time.Time
	Via  string
}

// Expired tells whether the head no longer speaks for now. A clock that is slow, or was set back, must not make it last: what counts is also
// how long ago it came.
func (h Head) Expired(now time.Time, skew time.Duration) bool {
	return h.Head.Expired(now, skew) || now.After(h.At.Add(h.TTL+skew)) || now.Before(h.At.Add(-skew))
}

// A Bucket is how much of a rate budget is left, as of a time.
type Bucket struct {
	Tokens float64
	At     time.Time
}

func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromStamp(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

type scanner interface{ Scan(dest ...any) error }

const moduleColumns = `name, created, epoch, applied, digest, applied_at, entries, confirmed, quarantine, quarantined, trouble, error, path, through, since, attempts, next`

func scanModule(row scanner) (Module, error) {
	var m Module
	var digest []byte
	var created, appliedAt, quarantined, since, next int64
	t := &m.Trouble
	err := row.Scan(&m.Name, &created, &m.Epoch, &m.Applied, &digest, &appliedAt, &m.Entries, &m.Confirmed, &m.Quarantine, &quarantined, &t.Kind, &t.Error, &t.Path,
		&t.Through, &since, &t.Attempts, &next)
	m.Created, m.AppliedAt, m.Quarantined, t.Since, t.Next = fromStamp(created), fromStamp(appliedAt), fromStamp(quarantined), fromStamp(since), fromStamp(next)
	copy(m.Digest[:], digest)
	return m, err
}

// ErrUnknownModule is returned for a module that Ensure was not called for.
var ErrUnknownModule = errors.New("not a module of this mirror")

func module(ctx context.Context, tx *sql.Tx, name event.Module) (Module, error) {
	m, err := scanModule(tx.QueryRowContext(ctx, "SELECT "+moduleColumns+" FROM module WHERE name = ?", name))
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrUnknownModule
	}
	if err != nil {
		return m, fmt.Errorf("module %s: %w", name, err)
	}
	return m, nil
}

// names reads what is stored as overtaken.
func names(stored []byte) map[string]bool {
	if len(stored) == 0 {
		return nil
	}
	all := map[string]bool{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(stored, []byte{0}), []byte{0}) {
		all[string(name)] = true
	}
	return all
}

const heardColumns = `line, digest, paths, at, via, state, ready, overtaken`

func scanHeard(row scanner) (Heard, error) {
	var h Heard
	var digest, overtaken []byte
	var at int64
	var state string
	if err := row.Scan(&h.Line, &digest, &h.Set, &at, &h.Via, &state, &h.Ready, &overtaken); err != nil {
		return h, err
	}
	h.Overtaken = names(overtaken)
	h.At, h.Done = fromStamp(at), state == "done"
	copy(h.Digest[:], digest)
	s, err := event.Read(h.Line)
	if err != nil {
		return h, fmt.Errorf("stored line: %w", err)
	}
	if s.Announcement == nil {
		return h, fmt.Errorf("stored line is a %s, not an announcement", s.Kind)
	}
	h.Announcement = *s.Announcement
	return h, nil
}

// query collects the rows of a query.
func query[T any](ctx context.Context, tx *sql.Tx, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := tx.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says what matters
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func head(ctx context.Context, tx *sql.Tx, name event.Module) (*Head, error) {
	var h Head
	var at int64
	err := tx.QueryRowContext(ctx, "SELECT line, at, via FROM head WHERE module = ?", name).Scan(&h.Line, &at, &h.Via)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := event.Read(h.Line)
	if err != nil || s.Head == nil {
		return nil, fmt.Errorf("stored head of module %s is none: %w", name, err)
	}
	h.Head, h.At = *s.Head, fromStamp(at)
	return &h, nil
}
