package trigger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/filelist"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// lists are those that a module keeps for clients that know nothing of mirrorbus.
type lists struct {
	wake    chan struct{} // holds one token: the manifest has moved on
	covered event.Serial  // what was announced up to here they hold; 0 at the start, when nobody remembers
	told    event.Serial  // they were announced at this serial, by this process
	said    string        // the last error that was logged
	rebuilt atomic.Bool   // the manifest was built anew, maybe at the serial of the one before
}

// ListPaths are the names, in the module, of the lists that it keeps. The hub announces them, and nobody else need.
func (m ModuleConfig) ListPaths() (all []string) {
	for _, kind := range m.Lists {
		all = append(all, filelist.Paths(kind, event.Module(m.Name))...)
	}
	return all
}

// keepLists begins to keep the lists of the modules that have any.
func (h *Hub) keepLists(ctx context.Context, g *errgroup.Group) {
	for _, x := range h.exports {
		if len(x.conf.Lists) > 0 {
			g.Go(func() error { return h.listLoop(ctx, x) })
		}
	}
}

// listLoop keeps a module's lists true, and announces them like any file of it: so mirrors have them, for clients of theirs.
func (h *Hub) listLoop(ctx context.Context, x *exported) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-x.lists.wake:
		}
		text := ""
		if err := h.updateLists(ctx, x); err != nil && ctx.Err() == nil {
			text = err.Error()
			if text != x.lists.said {
				h.log.Error("lists", "module", x.conf.Name, "error", err, "hint", fault.HintOf(err))
			}
			token(x.lists.wake) // it may go better later
		}
		x.lists.said = text
		if !wait(ctx, x.conf.ListsEvery.Duration) {
			return context.Cause(ctx)
		}
	}
}

// updateLists writes the lists if something was announced since, and announces those that are not what was announced of them last: whatever a crash left
// undone is done then.
func (h *Hub) updateLists(ctx context.Context, x *exported) error {
	m := event.Module(x.conf.Name)
	pos, err := x.manifest.Position(ctx)
	if errors.Is(err, manifest.ErrNotBuilt) {
		return nil
	}
	if err != nil {
		return err
	}
	st, err := h.journal.State(ctx, m)
	if err != nil || pos.Epoch != st.Epoch {
		return err
	}
	if rebuilt := x.lists.rebuilt.Swap(false); !rebuilt && pos.Serial == x.lists.covered && pos.Serial > 0 {
		return nil
	}
	root, err := os.OpenRoot(string(x.conf.Path))
	if err != nil {
		return fault.With(err, fault.Config, "is its path right, and may this user read it?")
	}
	defer root.Close() //nolint:errcheck // nothing is written through it that was not synced
	state, err := h.listState(ctx, x, st, pos, root)
	if err != nil {
		return err
	}
	var names []Name
	for _, kind := range x.conf.Lists {
		changed, err := filelist.Write(ctx, kind, state)
		if err != nil {
			return fault.With(err, fault.Failed, "may this user write to "+string(x.conf.Path)+"?")
		}
		more, err := x.untold(ctx, root, kind, changed, pos.Serial >= x.lists.told)
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	x.lists.covered = pos.Serial
	return h.tellLists(ctx, x, names)
}

// listState is what the lists are made from.
func (h *Hub) listState(ctx context.Context, x *exported, st journal.State, pos manifest.Position, root *os.Root) (filelist.State, error) {
	at, err := h.times(ctx, st)
	return filelist.State{
		Module: st.Module, Epoch: st.Epoch, Root: root, Files: x.manifest.Records(ctx, ""), Built: pos.Floor, Now: h.now(),
		At: func(s event.Serial) time.Time { return at[s] },
	}, err
}

// times are when the serials that are in the journal were announced. Clocks may go back, these do not.
func (h *Hub) times(ctx context.Context, st journal.State) (map[event.Serial]time.Time, error) {
	at := map[event.Serial]time.Time{}
	if st.Serial == 0 {
		return at, nil
	}
	entries, err := h.journal.Log(ctx, st.Module, 0, int(st.Serial-st.Floor)+1)
	if err != nil {
		return nil, err
	}
	var latest time.Time
	for i := len(entries) - 1; i >= 0; i-- { // the oldest first
		if entries[i].Created.After(latest) {
			latest = entries[i].Created
		}
		at[entries[i].Announcement.Serial] = latest
	}
	return at, nil
}

// untold are the lists that mirrors were not told of: those that changed and, where the manifest has seen what was announced last, those that are not as it says.
func (x *exported) untold(ctx context.Context, root *os.Root, kind string, changed []string, seen bool) (names []Name, err error) {
	for _, path := range filelist.Paths(kind, event.Module(x.conf.Name)) {
		is, err := root.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		untold := slices.Contains(changed, path)
		if seen && !untold {
			was, ok, err := x.manifest.Get(ctx, path)
			if err != nil {
				return nil, err
			}
			untold = !ok || was.Size != is.Size() || was.MTime != event.StampOf(is.ModTime())
		}
		if untold {
			names = append(names, Name{Path: path})
		}
	}
	return names, nil
}

// tellLists announces lists. If nothing was announced meanwhile, that alone is no reason to write them again.
func (h *Hub) tellLists(ctx context.Context, x *exported, names []Name) error {
	if len(names) == 0 {
		return nil
	}
	r := NewRequest(event.Module(x.conf.Name), names)
	r.Source = "lists"
	p, err := h.Publish(ctx, r)
	if err != nil {
		x.lists.covered, x.lists.told = 0, 0
		return fmt.Errorf("announce lists: %w", err)
	}
	x.lists.told = p.Serial
	if p.Serial == x.lists.covered+1 {
		x.lists.covered = p.Serial
	}
	return nil
}
