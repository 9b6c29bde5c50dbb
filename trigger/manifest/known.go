package manifest

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// A known is a row, what of it was touched too late, and the number of its inode, 0 if that is not known.
type known struct {
	event.Record
	late int64
	ino  uint64
}

const knownColumns = entryColumns + ", late, ino"

// scanKnown reads a row of knownColumns in directory dir.
func scanKnown(row scanner, dir string) (known, error) {
	var late, ino sql.Null[int64]
	r, err := scanRecord(wider{row, []any{&late, &ino}}, dir)
	return known{r, late.V, uint64(ino.V)}, err
}

type scanner interface{ Scan(...any) error }

// A wider is a row that ends with more columns than are asked for.
type wider struct {
	scanner
	more []any
}

// Scan implements scanner.
func (w wider) Scan(to ...any) error { return w.scanner.Scan(append(to, w.more...)...) }

const rowQuery = "SELECT " + knownColumns + " FROM entry WHERE dir = (SELECT dir FROM dir WHERE path = ?) AND name = ?"

// row is the row of a path.
func (m *Manifest) row(ctx context.Context, path string) (known, bool, error) {
	dir, name := split(path)
	k, err := scanKnown(m.rowOf.QueryRowContext(ctx, []byte(dir), []byte(name)), dir)
	if errors.Is(err, sql.ErrNoRows) {
		return known{}, false, nil
	}
	return k, err == nil, err
}

// maxAsked is how many names of a directory one question is for.
const maxAsked = 500

// rows are the rows of those paths that have one.
func (m *Manifest) rows(ctx context.Context, paths []string) (map[string]known, error) {
	in := map[string][]any{}
	for _, path := range paths {
		dir, name := split(path)
		in[dir] = append(in[dir], []byte(name))
	}
	all := map[string]known{}
	for dir, names := range in {
		for some := range slices.Chunk(names, maxAsked) {
			if err := m.rowsIn(ctx, dir, some, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// rowsIn adds the rows of some names of a directory to all.
func (m *Manifest) rowsIn(ctx context.Context, dir string, names []any, all map[string]known) (err error) {
	var rows *sql.Rows
	args := append([]any{[]byte(dir)}, names...)
	if len(names) == 1 {
		rows, err = m.rowOf.QueryContext(ctx, args...)
	} else {
		rows, err = m.look.QueryContext(ctx, "SELECT "+knownColumns+" FROM entry WHERE dir = (SELECT dir FROM dir WHERE path = ?) AND name IN (?"+
			strings.Repeat(", ?", len(names)-1)+")", args...)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		k, err := scanKnown(rows, dir)
		if err != nil {
			return err
		}
		all[k.Path] = k
	}
	return rows.Err()
}
