package manifest

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// Records yields prefix and what is below it ("" for everything), tombstones too, in order of the paths. It reads in parts and holds no lock: what is
// changed meanwhile may or may not be seen.
func (m *Manifest) Records(ctx context.Context, prefix string) iter.Seq2[event.Record, error] {
	if prefix == "" {
		return m.from(ctx, "", "")
	}
	return func(yield func(event.Record, error) bool) {
		r, ok, err := m.Get(ctx, prefix)
		if err != nil || ok {
			if !yield(r, err) || err != nil {
				return
			}
		}
		m.from(ctx, prefix+"/", after(prefix))(yield)
	}
}

// from yields the records from path first up to but not including last ("" for no end).
//
// The order is that of whole paths, which is not that of directories: "a-b" stands between "a" and "a/b". So each directory is walked as two
// sequences, its names and its subdirectories, where a subdirectory's place is that of its name with a slash.
func (m *Manifest) from(ctx context.Context, first, last string) iter.Seq2[event.Record, error] {
	return func(yield func(event.Record, error) bool) {
		a := &ascent{ctx: ctx, q: m.db, last: last, yield: func(r event.Record) bool { return yield(r, nil) }}
		id, err := dirID(ctx, m.db, "")
		if err == nil && id != 0 {
			_, err = a.dir(folder{id, ""}, first)
		}
		if err != nil {
			yield(event.Record{}, err)
		}
	}
}

type ascent struct {
	ctx   context.Context
	q     querier
	last  string
	yield func(event.Record) bool
}

// folder is a row of dir.
type folder struct {
	id   int64
	path string
}

func (f folder) name() string {
	_, name := split(f.path)
	return name
}

// dir yields what is below f, from the relative path rel on. more is false when the ascent is to end.
func (a *ascent) dir(f folder, rel string) (more bool, err error) {
	pending, more, err := a.enter(f, rel)
	if !more || err != nil {
		return false, err
	}
	names := &batches[event.Record]{read: a.names(f), key: func(r event.Record) string { _, name := split(r.Path); return name }, after: rel}
	kids := &batches[folder]{read: a.kids(f), key: folder.name, after: rel}
	for {
		name, haveName, err1 := names.peek()
		kid, haveKid, err2 := kids.peek()
		if err := errors.Join(err1, err2); err != nil {
			return false, err
		}
		top := len(pending) - 1
		switch {
		case top >= 0 && (!haveName || pending[top].name()+"/" < names.key(name)) && (!haveKid || pending[top].name()+"/" < kid.name()):
			if more, err := a.dir(pending[top], ""); !more || err != nil {
				return false, err
			}
			pending = pending[:top]
		case haveKid && (!haveName || kid.name() <= names.key(name)):
			pending = append(pending, kid) // its place is later, and that of one that follows before it comes first
			kids.next()
		case haveName:
			if (a.last != "" && name.Path >= a.last) || !a.yield(name) {
				return false, nil
			}
			names.next()
		default:
			return true, nil
		}
	}
}

// enter begins in the middle: it finds the subdirectories of f whose names come before rel but whose place does not, yields what is left of the one that rel
// leads into, and returns the others.
func (a *ascent) enter(f folder, rel string) (pending []folder, more bool, err error) {
	end := strings.IndexByte(rel, '/')
	for i := 1; i < len(rel) && (end < 0 || i <= end); i++ {
		if rel[i] > '/' {
			continue
		}
		path := join(f.path, rel[:i])
		id, err := dirID(a.ctx, a.q, path)
		if err != nil {
			return nil, false, err
		}
		switch {
		case id == 0:
		case rel[i] == '/':
			if more, err := a.dir(folder{id, path}, rel[i+1:]); !more || err != nil {
				return nil, false, err
			}
		default:
			pending = append(pending, folder{id, path})
		}
	}
	return pending, true, nil
}

// batchSize is how many rows are read at a time: neither one query for each row nor a whole directory in memory.
const batchSize = 1024

func (a *ascent) names(f folder) func(from string, inclusive bool) ([]event.Record, error) {
	return func(from string, inclusive bool) (batch []event.Record, err error) {
		rows, err := a.q.QueryContext(a.ctx, "SELECT "+entryColumns+" FROM entry WHERE dir = ? AND name "+op(inclusive)+" ? ORDER BY name LIMIT ?",
			f.id, []byte(from), batchSize)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			r, err := scanRecord(rows, f.path)
			if err != nil {
				return nil, err
			}
			batch = append(batch, r)
		}
		return batch, rows.Err()
	}
}

func (a *ascent) kids(f folder) func(from string, inclusive bool) ([]folder, error) {
	return func(from string, inclusive bool) (batch []folder, err error) {
		rows, err := a.q.QueryContext(a.ctx, "SELECT dir, path FROM dir WHERE parent = ? AND path "+op(inclusive)+" ? ORDER BY path LIMIT ?",
			f.id, []byte(join(f.path, from)), batchSize)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var id int64
			var path []byte
			if err := rows.Scan(&id, &path); err != nil {
				return nil, err
			}
			batch = append(batch, folder{id, string(path)})
		}
		return batch, rows.Err()
	}
}

func op(inclusive bool) string {
	if inclusive {
		return ">="
	}
	return ">"
}

// batches is a sequence of rows that is read in parts.
type batches[T any] struct {
	read  func(from string, inclusive bool) ([]T, error)
	key   func(T) string
	after string // where the next part begins

	have    []T
	started bool
	ended   bool
}

func (b *batches[T]) peek() (first T, ok bool, err error) {
	if len(b.have) == 0 && !b.ended {
		if b.have, err = b.read(b.after, !b.started); err != nil {
			return first, false, err
		}
		b.started, b.ended = true, len(b.have) < batchSize
	}
	if len(b.have) == 0 {
		return first, false, nil
	}
	return b.have[0], true, nil
}

func (b *batches[T]) next() {
	b.after, b.have = b.key(b.have[0]), b.have[1:]
}
