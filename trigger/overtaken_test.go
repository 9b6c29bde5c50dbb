package trigger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// A file that only grows is announced larger and larger, however many look at it at the same time: the newest announcement is what mirrors believe.
func TestAnnouncementsAreInTheOrderOfTheTree(t *testing.T) {
	m := newMaster(t)
	m.write("grows")
	p, parts := m.publisher(time.Now())
	f, err := os.OpenFile(filepath.Join(m.tree, "grows"), os.O_APPEND|os.O_WRONLY, 0)
	check(t, err)
	defer f.Close() //nolint:errcheck // only its size matters
	const authors, each = 8, 40
	over := make(chan struct{})
	var growth, group errgroup.Group
	growth.Go(func() error {
		for {
			select {
			case <-over:
				return nil
			default:
			}
			if _, err := f.Write([]byte{'.'}); err != nil {
				return err
			}
		}
	})
	for range authors {
		group.Go(func() error {
			for range each {
				r := request("grows")
				r.AsFound = true
				if _, err := p.Publish(t.Context(), r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	check(t, group.Wait())
	close(over)
	check(t, growth.Wait())
	var last int64
	st, err := parts.Journal.State(t.Context(), "m")
	check(t, err)
	for s, err := range parts.Journal.Since(t.Context(), "m", st.Epoch, 0) {
		check(t, err)
		set, err := envelope.PathSet(s.Set, s.Announcement.Set)
		check(t, err)
		if size := set[0].Size; size < last {
			t.Fatalf("serial %d says that the file has %d bytes, and an earlier one %d", s.Announcement.Serial, size, last)
		} else {
			last = size
		}
	}
	if st.Serial != event.Serial(authors*each) {
		t.Errorf("%d announcements instead of %d", st.Serial, authors*each)
	}
}

// Who looks at many names comes to announce them, though others announce one of them all the time.
func TestALongLookIsNotOvertakenForEver(t *testing.T) {
	m := newMaster(t)
	names := []string{"busy"}
	for i := range 3000 {
		names = append(names, fmt.Sprintf("d/f%04d", i))
	}
	m.write(names...)
	p, _ := m.publisher(time.Now())
	over := make(chan struct{})
	var busy errgroup.Group
	for range 2 {
		busy.Go(func() error {
			for {
				select {
				case <-over:
					return nil
				default:
				}
				if _, err := p.Publish(t.Context(), request("busy")); err != nil {
					return err
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := p.Publish(ctx, request(names...))
	close(over)
	check(t, err)
	check(t, busy.Wait())
}
