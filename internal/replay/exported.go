package replay

import (
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// exportTime is how long an announcement may take from the journal to the export: a hub that is killed in between comes back first.
const exportTime = 30 * time.Second

// follow takes in what the master has exported since: where nobody writes claims down, because a source announces what changes, the path sets are what is said.
// It says nothing of what was true of the names then, so there are no proofs.
func (c *claims) follow() error {
	r, err := export.OpenReader(c.exported)
	if errors.Is(err, export.ErrNotExported) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	if c.epoch == "" {
		line, err := r.Head()
		if errors.Is(err, export.ErrNotExported) {
			return nil
		}
		if err != nil {
			return err
		}
		head, err := event.Read(line)
		if err != nil {
			return err
		}
		if head.Head == nil {
			return fmt.Errorf("%s: its head is a %s", c.exported, head.Kind)
		}
		c.epoch = head.Head.Epoch
	}
	for entry, err := range r.Entries(c.epoch, c.upTo+1) {
		if err == nil {
			err = c.announced(entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// announced takes in one announcement.
func (c *claims) announced(entry export.Entry) error {
	said, err := event.Read(entry.Line)
	if err != nil {
		return err
	}
	one := newClaim()
	one.all = said.Announcement.Set.IsZero() // see the manifest
	var set event.PathSet
	if !one.all {
		if set, err = envelope.PathSet(entry.Set, said.Announcement.Set); err != nil {
			return fmt.Errorf("serial %d: %w", entry.Serial, err)
		}
	}
	for _, r := range set {
		one.name(r.Path, r.Spans() || r.Mode&event.ModeType != event.ModeDir)
		if r.Op == event.Renamed {
			one.name(r.From, true)
		}
	}
	c.list = append(c.list, one)
	c.done = append(c.done, serial{entry.Serial, len(c.list)})
	c.upTo = entry.Serial
	return nil
}
