package outbox

import (
	"bytes"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
)

// TestBatchIsBounded: however many and however large messages wait, only so much is in memory.
func TestBatchIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ size, limit, count int }{
		"many small":                        {size: 1, limit: batchBytes, count: batchMessages},
		"few large":                         {size: batchBytes / 4, limit: batchBytes, count: 4},
		"one huge":                          {size: 2 * batchBytes, limit: 4 * batchBytes, count: 1},
		"a body that cannot go is not read": {size: batchBytes, limit: 372, count: 6},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"), sqlite.Options{Durability: sqlite.Normal, Schema: []sqlite.Component{Schema()}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}()
			e := Entry{Message: transports.Message{
				Topic: transports.Topic{Kind: transports.Announce, Module: "fedora"}, ID: "1", Body: bytes.Repeat([]byte("x"), c.size),
			}}
			n := 6
			if c.size == 1 {
				n = batchMessages + 50
			}
			err = sqlite.Tx(t.Context(), db, func(tx *sql.Tx) error {
				for range n {
					if err := Put(t.Context(), tx, e, []string{"irc"}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			r := NewRelay(Options{DB: db, Name: "irc", Caps: transports.Capabilities{MaxBody: c.limit}})
			batch, err := r.read(t.Context())
			if err != nil || len(batch) != c.count {
				t.Errorf("read %d messages, %v; want %d", len(batch), err, c.count)
			}
		})
	}
}
