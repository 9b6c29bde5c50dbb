package listener

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// errNewer says that newer announcements explain what was found, so that all is to be planned again with them.
var errNewer = fmt.Errorf("newer announcements were taken in: %w", errAgain)

// excuse decides about a run that could not bring some paths. nil: newer announcements speak of each of them, they are left to the next batch,
// and this one goes on.
func (b *batch) excuse(ctx context.Context, cause error) error {
	err := b.explain(ctx, cause)
	var failed *rsync.Error
	if !errors.As(cause, &failed) || failed.Omitted > 0 || len(failed.Paths) == 0 {
		return err
	}
	later, loadErr := b.later(ctx)
	if loadErr != nil {
		return errors.Join(err, loadErr)
	}
	for _, p := range failed.Paths {
		if b.mayName(later, p.Path) {
			return b.incomplete(later, p.Path, err)
		}
	}
	if !b.goesOn(err) {
		return err
	}
	for _, p := range failed.Paths {
		if !later.speaksOf(p.Path) {
			return err
		}
	}
	b.superseded = later
	b.w.log.Info("paths left to newer announcements", "serial", b.through, "paths", len(failed.Paths), "first", failed.Paths[0].Path)
	return nil
}

// excuseFinding decides likewise about what the check found. nil: check again, without what newer announcements speak of.
func (b *batch) excuseFinding(ctx context.Context, f finding) error {
	err := b.explain(ctx, &pathError{f.path, errors.New(f.what)})
	later, loadErr := b.later(ctx)
	if loadErr != nil {
		return errors.Join(err, loadErr)
	}
	if b.mayName(later, f.path) {
		return b.incomplete(later, f.path, err)
	}
	if !b.goesOn(err) {
		return err
	}
	if !later.speaksOf(f.path) {
		return err
	}
	b.superseded = later
	b.w.log.Info("paths left to newer announcements", "serial", b.through, "first", f.path)
	return nil
}

// goesOn tells whether newer announcements, which explain has taken in or which were here before, are to be asked about what it could not mend. To make
// the batch again with all of them would be another way; where changes come faster than a slow mirror works it would never end.
func (b *batch) goesOn(err error) bool {
	return errors.Is(err, errNewer) || !errors.Is(err, errAgain) && b.v.Through > b.through
}

// A speech is what a number of announcements speak of.
type speech struct {
	paths map[string]bool // named, or above a named one
	above map[string]bool // above a named one, and not named
	whole map[string]bool // directories of which all below is spoken of
	gone  []string        // names that are gone; directories that are as they are now may have lost any
}

// later is what the announcements after this batch, that are here, speak of.
func (b *batch) later(ctx context.Context) (speech, error) {
	rows, err := b.w.a.inbox.Batch(ctx, b.w.m.Name, event.MaxSerial, maxBatch)
	if err != nil {
		return speech{}, err
	}
	s := speech{paths: map[string]bool{}, whole: map[string]bool{}, above: map[string]bool{}}
	for _, h := range rows {
		if h.Serial <= b.through || h.Set == nil {
			continue
		}
		set, err := envelope.PathSet(h.Set, h.Announcement.Set)
		if err != nil {
			return speech{}, fmt.Errorf("serial %d: %w", h.Serial, err)
		}
		for _, r := range set {
			s.add(r)
			if h.Kind != event.Flip && r.Spans() {
				s.gone = append(s.gone, cmp.Or(r.From, r.Path))
			}
		}
	}
	return s, nil
}

func (s speech) add(r event.Record) {
	for _, p := range []string{r.Path, r.From} {
		if p != "" && (r.Spans() || r.Mode != 0 && !r.IsDir()) { // of what is no directory nothing is below
			s.whole[p] = true
		}
		if p != "" {
			delete(s.above, p)
		}
		for named := true; p != "" && !s.paths[p]; p, named = parentOf(p), false {
			s.paths[p] = true
			if !named {
				s.above[p] = true
			}
		}
	}
}

// speaksOf tells whether the path, something below it or a directory above it as a whole is spoken of.
func (s speech) speaksOf(path string) bool {
	if s.paths[path] {
		return true
	}
	for p := path; p != ""; p = parentOf(p) {
		if s.whole[p] {
			return true
		}
	}
	return false
}

// states tells whether the path itself is spoken of, or a directory above it as a whole.
func (s speech) states(path string) bool {
	return s.paths[path] && !s.above[path] || s.spans(path)
}

// spans tells whether a directory above the path is spoken of as a whole.
func (s speech) spans(path string) bool {
	for p := parentOf(path); p != ""; p = parentOf(p) {
		if s.whole[p] {
			return true
		}
	}
	return false
}

func parentOf(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return ""
	}
	return path[:i]
}
