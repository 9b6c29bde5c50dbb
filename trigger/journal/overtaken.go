package journal

import (
	"context"
	"database/sql"
	"errors"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// Several look at the tree at the same time: a watcher, a scan, hooks. Who has looked first may come to announce it last, and what mirrors believe is the newest
// announcement. So an entry says what was the newest one when its author began to look, and if one that came since speaks of the same names, its author
// has to look again.

// overtaken refuses an entry that may say older things than what was announced since its author looked.
func (j *Journal) overtaken(ctx context.Context, tx *sql.Tx, st State, e Entry) error {
	switch {
	case e.Seen == nil || e.Set == nil:
		return nil
	case e.Seen.Epoch != st.Epoch:
		return ErrOvertaken
	}
	for serial := st.Serial; serial > e.Seen.Serial; serial-- {
		set, known := j.spoken.set(e.Module, st.Epoch, serial)
		if !known {
			var err error
			set, err = storedSet(ctx, tx, st, serial)
			switch {
			case errors.Is(err, sql.ErrNoRows): // trimmed: it was a long look
				return ErrOvertaken
			case err != nil:
				return err
			}
		}
		if e.Set.Overlaps(set) {
			return ErrOvertaken
		}
	}
	return nil
}

// storedSet is the path set of an announcement, nil if it names no paths.
func storedSet(ctx context.Context, tx *sql.Tx, st State, serial event.Serial) (event.PathSet, error) {
	s, err := scanEntry(tx.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM entry WHERE module = ? AND epoch = ? AND serial = ?", st.Module, st.Epoch, serial))
	if err != nil || s.Set == nil {
		return nil, wrap(err, "serial %d", serial)
	}
	return envelope.PathSet(s.Set, s.Announcement.Set)
}

// A spoken is what was announced last, so that it need not be read from the database.
type spoken struct {
	said    map[said]event.PathSet
	order   []said // oldest first
	records int
}

type said struct {
	module event.Module
	epoch  event.Epoch
	serial event.Serial
}

// What is kept of what was spoken of.
const (
	maxSpoken        = 1000
	maxSpokenRecords = 100_000
)

func (s *spoken) add(a event.Announcement, set event.PathSet) {
	if s.said == nil {
		s.said = map[said]event.PathSet{}
	}
	key := said{a.Module, a.Epoch, a.Serial}
	s.said[key], s.order, s.records = set, append(s.order, key), s.records+len(set)
	for len(s.order) > maxSpoken || s.records > maxSpokenRecords {
		s.records -= len(s.said[s.order[0]])
		delete(s.said, s.order[0])
		s.order = s.order[1:]
	}
}

func (s *spoken) set(m event.Module, e event.Epoch, serial event.Serial) (set event.PathSet, known bool) {
	set, known = s.said[said{m, e, serial}]
	return set, known
}

// forget drops everything: what was added may not have been stored.
func (s *spoken) forget() { *s = spoken{} }
