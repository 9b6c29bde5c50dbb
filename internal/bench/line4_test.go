package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// announcements is line 4: calls of publish per second through the control socket, each durable when it returns, beside commits per second of a row
// of the same size into a SQLite file with the same settings. No mirror is subscribed.
func (b *bench) announcements() error {
	s, err := b.newSite("publish", func(tree string) error {
		return errors.Join(os.MkdirAll(tree, 0o755), os.WriteFile(filepath.Join(tree, "file"), nil, 0o644))
	})
	if err != nil {
		return err
	}
	row1, err := s.publish(false, []trigger.Name{{Path: "file"}})
	if err != nil {
		return err
	}
	bare, err := openBare(b.ctx, filepath.Join(b.dir, "bare.db"), len(row1.Line))
	if err != nil {
		return err
	}
	defer bare.db.Close() //nolint:errcheck // thrown away
	for _, clients := range []int{1, 50} {
		var ours, theirs []float64
		for range b.rounds {
			o, err := b.rate(clients, func() error {
				_, err := s.publish(false, []trigger.Name{{Path: "file"}})
				return err
			})
			if err != nil {
				return err
			}
			t, err := b.rate(clients, func() error { return bare.commit(b.ctx) })
			if err != nil {
				return err
			}
			ours, theirs = append(ours, o), append(theirs, t)
		}
		b.add(row{line: "4", what: fmt.Sprintf("durable publish calls, %d at a time", clients), ours: median(ours), against: "bare commits of the same row",
			theirs: median(theirs), unit: perSecond, rounds: len(ours)})
	}
	return nil
}

// rate is how often per second f is done by so many at a time.
func (b *bench) rate(clients int, f func() error) (float64, error) {
	g, ctx := errgroup.WithContext(b.ctx)
	start := time.Now()
	done := make([]int, clients)
	for i := range clients {
		g.Go(func() error {
			for ctx.Err() == nil && time.Since(start) < b.storing {
				if err := f(); err != nil {
					return err
				}
				done[i]++
			}
			return nil
		})
	}
	err := g.Wait()
	sum := 0
	for _, n := range done {
		sum += n
	}
	return float64(sum) / time.Since(start).Seconds(), err
}

// A bareStore is a SQLite file with a table like the journal's.
type bareStore struct {
	db   *sql.DB
	line []byte
}

func openBare(ctx context.Context, path string, size int) (*bareStore, error) {
	db, err := sqlite.Open(ctx, path, sqlite.Options{Durability: sqlite.Full, Schema: []sqlite.Component{{Name: "bare", Steps: []string{
		"CREATE TABLE entry (serial INTEGER PRIMARY KEY, created INTEGER NOT NULL, line BLOB NOT NULL)",
	}}}})
	return &bareStore{db, make([]byte, size)}, err
}

func (s *bareStore) commit(ctx context.Context) error {
	return sqlite.Tx(ctx, s.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO entry (created, line) VALUES (?, ?)", time.Now().UnixMilli(), s.line)
		return err
	})
}
