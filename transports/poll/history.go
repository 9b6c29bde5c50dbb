package poll

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// A history is what is shown of one module: the newest announcements, the oldest first, and the newest head.
//
// The announcements are kept in the process's own database (Env.Bookmarks) before Publish returns, so that a feed does not become empty when the hub is
// started again. Backlog would not do: it tells what came after a position, and a feed is for readers who give none. The head is kept in memory alone; the hub
// says it anew as soon as it starts.
type history struct {
	Announcements []announcement `json:"announcements"`
	head          announcement   // Body is nil if none was said yet
}

// An announcement is a message with the time at which it was first to be shown.
type announcement struct {
	ID   string    `json:"id"`
	At   time.Time `json:"at"`
	Body []byte    `json:"body"`
}

// isHead tells whether a body says no more than where a module stands.
func isHead(body []byte) bool { return words.Of(body)[""] == "head" }

// maxFeed is about how large a feed may become in bytes, whatever number of announcements is configured: half of what a mirror reads.
const maxFeed = maxDocument / 2

// add takes in a message that may have been taken in before. What it tells is news for the database, or not. Announcements of another epoch are of a
// history that has ended, and those beyond most are left out.
func (h *history) add(m transports.Message, now time.Time, most int) (isNew bool) {
	a := announcement{ID: m.ID, At: now.UTC().Truncate(time.Second), Body: m.Body}
	if isHead(m.Body) {
		h.head = a
		return false
	}
	if slices.ContainsFunc(h.Announcements, func(o announcement) bool { return o.ID == a.ID && string(o.Body) == string(a.Body) }) {
		return false
	}
	epoch := words.Of(a.Body)["epoch"]
	kept := slices.DeleteFunc(slices.Clone(h.Announcements), func(o announcement) bool {
		other := words.Of(o.Body)["epoch"]
		return o.ID == a.ID || epoch != "" && other != "" && epoch != other
	})
	kept = append(kept, a)
	size := 0
	for i := len(kept) - 1; i >= 0; i-- {
		if size += 2*len(kept[i].Body) + 1500; size > maxFeed || len(kept)-i > most {
			kept = kept[i+1:]
			break
		}
	}
	h.Announcements = kept
	return true
}

func mark(module string) string { return "poll feed " + module }

// load reads what was kept. What cannot be read is as if there were nothing: it is only what readers see of the past.
func load(ctx context.Context, b transports.Bookmarks, module string) (*history, error) {
	h := &history{}
	if b == nil {
		return h, nil
	}
	text, err := b.Bookmark(ctx, mark(module))
	if err != nil || text == "" {
		return h, err
	}
	if json.Unmarshal([]byte(text), h) != nil {
		return &history{}, nil
	}
	return h, nil
}

func (h *history) save(ctx context.Context, b transports.Bookmarks, module string) error {
	if b == nil {
		return nil
	}
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("history of module %s: %w", module, err)
	}
	return b.SetBookmark(ctx, mark(module), string(text))
}
