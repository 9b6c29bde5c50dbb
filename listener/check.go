package listener

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
)

// A finding is a path that is not as its record says.
type finding struct {
	path string
	what string
}

// checked makes sure that the tree is as announced, but for what newer announcements speak of.
func (b *batch) checked(ctx context.Context, t *tree) error {
	for again := true; ; again = false {
		found, err := b.check(ctx, t, b.expected(b.plan.Expect))
		if err != nil || len(found) == 0 {
			return err
		}
		if !again {
			return &pathError{found[0].path, errors.New(found[0].what)}
		}
		if err := b.excuseFinding(ctx, found[0]); err != nil {
			return err
		}
	}
}

// check compares the tree with what is expected of it. Permissions are set as they were announced: the upstream's may be others by now, of which nobody has
// said anything yet. What a newer announcement speaks of is left to that, or something that it hides would be shown once more.
func (b *batch) check(ctx context.Context, t *tree, expect []event.Record) ([]finding, error) {
	found, modes, err := b.compare(ctx, t, expect)
	if err != nil || len(modes) == 0 {
		return found, err
	}
	later, err := b.news(ctx)
	if err != nil {
		return nil, err
	}
	b.w.flipping.Lock()
	defer b.w.flipping.Unlock()
	if found, modes, err = b.compareNow(ctx, t, expect); err != nil { // a flip may have come meanwhile
		return nil, err
	}
	modes = slices.DeleteFunc(modes, func(r event.Record) bool { return later.states(r.Path) })
	if len(modes) == 0 {
		return found, nil
	}
	b.w.log.Info("permissions are not as on the upstream but as announced", "serial", b.through, "paths", len(modes), "first", modes[0].Path)
	return found, t.applyFlip(modes, b.w.m.mask())
}

func (b *batch) compare(ctx context.Context, t *tree, expect []event.Record) ([]finding, []event.Record, error) {
	b.w.flipping.Lock() // a flip half noted would look like a wrong mode
	defer b.w.flipping.Unlock()
	return b.compareNow(ctx, t, expect)
}

// compareNow compares after flips that were done ahead of their turn are done again. The caller does the flipping.
func (b *batch) compareNow(ctx context.Context, t *tree, expect []event.Record) ([]finding, []event.Record, error) {
	flipped, err := b.w.reassert(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	if len(flipped) > 0 {
		expect = append([]event.Record(nil), expect...)
		for i, r := range expect {
			if f, ok := flipped[r.Path]; ok && r.Mode != 0 && r.Op != event.Gone {
				expect[i].Mode = f.Mode
			}
		}
	}
	return t.check(expect, b.w.m.mask())
}

// otherMode is what judge says of what differs only in its permissions.
const otherMode = "has other permissions"

// judge compares what is at a path (nil for nothing) with its record and says what is wrong, "" if nothing is. A file that is newer than its
// record was written again since; a later announcement speaks of that, so it is not wrong. mask are permission bits that this mirror drops.
func judge(r event.Record, info fs.FileInfo, mask uint32) string {
	switch {
	case r.Op == event.Gone && info != nil:
		return "is still there"
	case r.Op == event.Gone:
		return ""
	case info == nil:
		return "is missing"
	case r.Mode == 0:
		return ""
	}
	newer := newerThan(r, info)
	switch {
	case typeOf(info.Mode()) != r.Mode&event.ModeType:
		if newer {
			return ""
		}
		return "is of another type"
	case r.Mode&event.ModeType == event.ModeLink:
		return ""
	case r.Mode&event.ModeType != event.ModeFile:
	case newer:
		return ""
	case info.Size() != r.Size:
		return "has another size"
	case !event.StampOf(info.ModTime()).Agrees(r.MTime):
		return "is older than announced"
	}
	if unixMode(info.Mode()) != r.Mode&0o7777&^mask {
		return otherMode
	}
	return ""
}

// newerThan tells whether what is at a path was written after its record was made. It need not have been if the master has put something older there.
func newerThan(r event.Record, info fs.FileInfo) bool {
	return info.ModTime().After(r.MTime.Time()) && !event.StampOf(info.ModTime()).Agrees(r.MTime)
}

// typeOf is the file type as in stat(2).
func typeOf(m fs.FileMode) uint32 {
	switch m.Type() {
	case 0:
		return event.ModeFile
	case fs.ModeDir:
		return event.ModeDir
	case fs.ModeSymlink:
		return event.ModeLink
	case fs.ModeNamedPipe:
		return 0o010000
	case fs.ModeSocket:
		return 0o140000
	case fs.ModeDevice:
		return 0o060000
	}
	return 0o020000
}

// maxFindings is how many findings are collected; the rest would say the same.
const maxFindings = 100

// newer are the paths at which something stands that is newer than its record.
func (t *tree) newer(records []event.Record) (paths []string, err error) {
	g := t.glance()
	defer g.close()
	for _, r := range records {
		if r.Op == event.Gone || r.Mode == 0 || r.IsDir() {
			continue
		}
		info, err := g.lstat(r.Path)
		if err != nil {
			return nil, err
		}
		if info != nil && newerThan(r, info) {
			paths = append(paths, r.Path)
		}
	}
	return paths, nil
}

// check compares the tree with the records, which must be this mirror's own. What differs only in its permissions is in modes alone.
func (t *tree) check(records []event.Record, mask uint32) (found []finding, modes []event.Record, err error) {
	g := t.glance()
	defer g.close()
	for _, r := range records {
		info, err := g.lstat(r.Path)
		if err != nil {
			return found, modes, err
		}
		switch what := judge(r, info, mask); what {
		case "":
		case otherMode:
			modes = append(modes, r)
		default:
			if found = append(found, finding{r.Path, what}); len(found) == maxFindings {
				return found, modes, nil
			}
		}
	}
	return found, modes, nil
}
