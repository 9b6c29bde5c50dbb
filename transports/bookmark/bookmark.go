// Package bookmark keeps the positions of transports that read a log, in a database that belongs to somebody else. It is transports.Bookmarks.
package bookmark

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// Schema is the bookmarks as a component of somebody's database.
func Schema() sqlite.Component { return sqlite.Component{Name: "bookmark", Steps: []string{table}} }

const table = `CREATE TABLE bookmark (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;`

// Store keeps bookmarks in DB.
type Store struct{ DB *sql.DB }

// Bookmark implements transports.Bookmarks.
func (s Store) Bookmark(ctx context.Context, name string) (text string, err error) {
	err = s.DB.QueryRowContext(ctx, `SELECT text FROM bookmark WHERE name = ?`, name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("bookmark %s: %w", name, err)
	}
	return text, nil
}

// SetBookmark implements transports.Bookmarks.
func (s Store) SetBookmark(ctx context.Context, name, text string) error {
	_, err := s.DB.ExecContext(ctx, `INSERT INTO bookmark (name, text) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET text = excluded.text`, name, text)
	if err != nil {
		return fmt.Errorf("set bookmark %s: %w", name, err)
	}
	return nil
}
