package bookmark_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/bookmark"
)

var _ transports.Bookmarks = bookmark.Store{}

// TestBookmarks: what was set last is there, for each name, after the database was closed, too.
func TestBookmarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open := func() (bookmark.Store, func()) {
		db, err := sqlite.Open(t.Context(), path, sqlite.Options{Durability: sqlite.Full, Schema: []sqlite.Component{bookmark.Schema()}})
		if err != nil {
			t.Fatal(err)
		}
		return bookmark.Store{DB: db}, func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	s, closeDB := open()
	want(t, s, "a", "")
	for _, text := range []string{"1", "2", ""} {
		for name, text := range map[string]string{"a": text, "b": "b" + text} {
			if err := s.SetBookmark(t.Context(), name, text); err != nil {
				t.Fatal(err)
			}
			want(t, s, name, text)
		}
	}
	closeDB()
	s, closeDB = open()
	want(t, s, "a", "")
	want(t, s, "b", "b")
	closeDB()
	if _, err := s.Bookmark(context.Background(), "a"); err == nil {
		t.Error("a closed database is read")
	}
	if s.SetBookmark(context.Background(), "a", "") == nil {
		t.Error("a closed database is written")
	}
}

func want(t *testing.T, s bookmark.Store, name, text string) {
	t.Helper()
	if got, err := s.Bookmark(t.Context(), name); err != nil || got != text {
		t.Errorf("bookmark %s: %q, %v, want %q", name, got, err, text)
	}
}
