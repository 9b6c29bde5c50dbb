package manifest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// Progress tells how far a Build is.
type Progress struct {
	Entries  int64 // paths seen
	Bytes    int64 // of them, in bytes
	Dirs     int64 // directories read
	Waiting  int64 // directories known and not read yet
	Expected int64 // entries of the manifest before, 0 if there was none: what Entries may come to
	Special  int64 // sockets, FIFOs and devices left out
	Elapsed  time.Duration
	Mounts   []string // mount points that were not entered; only at the end
}

// progressEvery is how often a Build reports.
const progressEvery = 200 * time.Millisecond

// rowsPerTx bounds what one transaction of a Build writes, and with it the write-ahead log.
const rowsPerTx = 20_000

// Build makes the manifest anew from the tree at root, as the state after serial, by one walk. An interrupted one leaves ErrNotBuilt behind. Whatever of the
// tree cannot be read is an error: a path that is missing from a manifest is a path that mirrors remove.
func (m *Manifest) Build(ctx context.Context, root string, epoch event.Epoch, serial event.Serial, progress func(Progress)) (Progress, error) {
	m.walks.Lock()
	defer m.walks.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &builder{m: m, serial: serial, start: time.Now(), progress: progress, dirs: map[string]int64{}}
	if err := b.run(ctx, root, epoch); err != nil {
		return b.p, m.named(fmt.Errorf("build manifest of %s from %s: %w", m.module, root, err))
	}
	return b.p, nil
}

type builder struct {
	m        *Manifest
	serial   event.Serial
	start    time.Time
	last     time.Time // of progress
	progress func(Progress)
	p        Progress

	dirs map[string]int64 // ids by path
	todo []listing        // not written yet
	rows int              // in todo
	buf  []byte           // for digests
}

func (b *builder) run(ctx context.Context, path string, epoch event.Epoch) error {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	before, err := b.m.Count(ctx)
	if err != nil {
		return err
	}
	b.p.Expected = before.Entries
	at, err := placeOf(root)
	if err == nil {
		err = b.m.clear(ctx)
	}
	if err != nil {
		return err
	}
	w := &walk{root: root, crossMounts: b.m.o.CrossMounts, each: func(l listing, waiting int) error { return b.add(ctx, l, waiting) }}
	if err := w.run(ctx, ""); err != nil {
		return err
	}
	if err := b.flush(ctx); err != nil {
		return err
	}
	failpoint.Here("manifest.walked")
	b.p.Waiting, b.p.Mounts = 0, slices.Sorted(slices.Values(w.mounts))
	b.report(time.Now())
	return b.m.begin(ctx, Position{Epoch: epoch, Serial: b.serial, Floor: b.serial}, at, b.p.Mounts)
}

// clear empties the manifest.
func (m *Manifest) clear(ctx context.Context) error {
	return sqlite.Tx(ctx, m.db, func(tx *sql.Tx) error {
		for _, table := range []string{"position", "shard", "entry", "dir", "root", "mount"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO dir (path) VALUES (?)", []byte(""))
		return err
	})
}

// begin says that the manifest is whole, all of it to be exported, and where the tree lay.
func (m *Manifest) begin(ctx context.Context, p Position, at place, mounts []string) error {
	return sqlite.Tx(ctx, m.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO shard (start, first, digest, entries, bytes, content, dirty) VALUES (?, ?, ?, 0, 0, 0, 1)", []byte(""), []byte(""), []byte(""))
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO position (epoch, serial, floor) VALUES (?, ?, ?)", p.Epoch, p.Serial, p.Floor)
		}
		if err == nil {
			err = settle(ctx, tx, at, mounts)
		}
		return err
	})
}

func (b *builder) add(ctx context.Context, l listing, waiting int) error {
	b.p.Dirs++
	b.p.Waiting = int64(waiting)
	b.p.Special += int64(len(l.special))
	for _, i := range l.inodes {
		b.p.Entries++
		b.p.Bytes += i.Size
	}
	if now := time.Now(); now.Sub(b.last) >= progressEvery {
		b.report(now)
	}
	b.todo = append(b.todo, l)
	if b.rows += len(l.inodes); b.rows < rowsPerTx {
		return nil
	}
	return b.flush(ctx)
}

func (b *builder) report(now time.Time) {
	b.last, b.p.Elapsed = now, now.Sub(b.start)
	if b.progress != nil {
		b.progress(b.p)
	}
}

// flush writes what was found. Each directory gets a greater number than those before it, so that its rows go to the end of the table.
func (b *builder) flush(ctx context.Context) error {
	err := sqlite.Tx(ctx, b.m.db, func(tx *sql.Tx) (err error) {
		stmt, err := tx.PrepareContext(ctx, insertEntry)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stmt.Close()) }()
		note, err := tx.PrepareContext(ctx, "UPDATE dir SET seen = ? WHERE dir = ?")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, note.Close()) }()
		c := &changer{ctx: ctx, tx: tx, dirs: b.dirs}
		for _, l := range b.todo {
			if err := b.write(ctx, c, stmt, note, l); err != nil {
				return err
			}
		}
		return nil
	})
	b.todo, b.rows = b.todo[:0], 0
	return err
}

func (b *builder) write(ctx context.Context, c *changer, stmt, note *sql.Stmt, l listing) error {
	if len(l.inodes) == 0 {
		return nil
	}
	id, err := c.makeDir(l.dir)
	if err != nil {
		return err
	}
	for _, i := range l.inodes {
		_, name := split(i.Path)
		i.Serial = b.serial
		if _, err := stmt.ExecContext(ctx, entryValues(id, name, i.Record, i.ino)...); err != nil {
			return fmt.Errorf("path %.200q: %w", i.Path, err)
		}
	}
	var seen []byte
	seen, b.buf = digest(b.buf, l)
	_, err = note.ExecContext(ctx, seen, id)
	return err
}
