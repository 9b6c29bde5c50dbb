package filelist

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// recentLink leads clients to the first window.
const recentLink = "RECENT.recent"

// A window is one RECENT file: what happened in so long a time until now.
type window struct {
	name string
	span time.Duration
}

const day = 24 * time.Hour

// windows are all, with the spans that rrr's letters stand for. Z is everything there is.
var windows = []window{{"1h", time.Hour}, {"6h", 6 * time.Hour}, {"1d", day}, {"1W", 7 * day}, {"1M", 30 * day}, {"1Q", 90 * day}, {"1Y", 365*day + 6*time.Hour}, {"Z", 0}}

func (w window) file() string { return "RECENT-" + w.name + ".yaml" }

// A happening is the last thing that happened to a file.
type happening struct {
	path   string
	serial event.Serial
	hash   uint64 // orders what happened at one serial, and stays the same when others change
	gone   bool
	epoch  string
}

// maxHash is below ten digits.
const maxHash = 10_000_000_000

// writeRecent writes the files that are due. A window reaches back to where the next one ends, so that a client which moves on from one to the next
// misses nothing; the next one is written again when it is older than half of the one before it is long. That is how rrr aggregates.
func writeRecent(ctx context.Context, s State) (changed []string, err error) {
	all, err := s.happenings(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	next := head{}
	for i, w := range slices.Backward(windows) {
		now, err := readHead(s.Root, w.file())
		if err != nil {
			return changed, err
		}
		if s.due(i, now, all[0].epoch) {
			now = s.window(i, next, all)
			d, err := newDraft(s.Root, w.file())
			if err != nil {
				return changed, err
			}
			now.write(d.Writer)
			placed, err := d.place()
			if err = errors.Join(err, d.discard()); err != nil {
				return changed, err
			}
			if placed {
				changed = append(changed, w.file())
			}
		}
		next = now
	}
	linked, err := s.link()
	if linked {
		changed = append(changed, recentLink)
	}
	return changed, err
}

// happenings are all, the newest first.
func (s State) happenings(ctx context.Context) (all []happening, err error) {
	for r, err := range s.Files {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if r.IsDir() || isList(r.Path) {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(r.Path)) // never fails
		all = append(all, happening{path: r.Path, serial: r.Serial, hash: h.Sum64() % maxHash, gone: r.Op == event.Gone})
	}
	slices.SortFunc(all, func(a, b happening) int {
		return cmp.Or(cmp.Compare(b.serial, a.serial), cmp.Compare(b.hash, a.hash), strings.Compare(b.path, a.path))
	})
	apart(all)
	s.date(all)
	return all, nil
}

// apart makes equal hashes unequal: two epochs must not be the same.
func apart(all []happening) {
	for i := len(all) - 2; i >= 0; i-- {
		if newer, older := &all[i], all[i+1]; newer.serial == older.serial && newer.hash <= older.hash {
			newer.hash = older.hash + 1
		}
	}
}

// unknown stands for the time of serials of which it is not known any more.
const unknown = 1

// date gives each its epoch. That is what rrr calls a time, by which events are ordered and told apart. Ours are times of announcements in whole
// seconds; serial and hash make them unique and constant. Epochs of this form compare as strings.
func (s State) date(all []happening) {
	at, of := uint64(unknown), event.Serial(0)
	for i := range all {
		if h := &all[i]; i == 0 || h.serial != of {
			of, at = h.serial, unknown
			if told := s.At(of); told.Unix() > unknown {
				at = uint64(told.Unix())
			}
		}
		b := append(padded(make([]byte, 0, 37), at, 1e9), '.')
		all[i].epoch = string(padded(padded(b, uint64(all[i].serial), 1e14), all[i].hash, 1e10))
	}
}

// padded appends n with as many digits as least has, at least.
func padded(b []byte, n, least uint64) []byte {
	for ; least > n && least > 1; least /= 10 {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, n, 10)
}

// due tells whether a window is to be written, of which now is there, when newest is the newest epoch of all.
func (s State) due(i int, now head, newest string) bool {
	switch {
	case now.max == "" || now.dirtymark != s.dirtymark():
		return true
	case now.max >= newest:
		return false
	}
	return i == 0 || s.Now.Sub(now.written) >= windows[i-1].span/2
}

// dirtymark tells clients by another value to believe nothing that they have: an epoch of ours began anew.
func (s State) dirtymark() string {
	n, err := strconv.ParseUint(string(s.Epoch), 16, 64)
	if err != nil {
		return "1." + hex.EncodeToString([]byte(s.Epoch))
	}
	return strconv.FormatUint(n, 10)
}

// window is the content of a window, where next is the one after it.
func (s State) window(i int, next head, all []happening) head {
	h := head{interval: windows[i].name, dirtymark: s.dirtymark()}
	from, last := "", i+1 == len(windows)
	if !last {
		from = fmt.Sprintf("%010d", s.Now.Add(-windows[i].span).Unix())
	}
	if next.max != "" {
		from = min(from, next.max)
		h.into, h.merged = next.interval, next.max
	}
	n := 0
	for n < len(all) && all[n].epoch >= from {
		n++
	}
	h.events = all[:n]
	if last { // what was removed long ago, nobody has any more
		h.events = slices.DeleteFunc(slices.Clone(h.events), func(e happening) bool { return e.gone })
	}
	if len(h.events) > 0 {
		h.max, h.min = h.events[0].epoch, h.events[len(h.events)-1].epoch
	}
	return h
}

// link makes RECENT.recent lead to the first window.
func (s State) link() (changed bool, err error) {
	to := windows[0].file()
	if is, err := s.Root.Readlink(recentLink); err == nil && is == to {
		return false, nil
	}
	temp := event.ExportDir + "/.tmp-list-link"
	if err := s.Root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := s.Root.Symlink(to, temp); err != nil {
		return false, err
	}
	return true, s.Root.Rename(temp, recentLink)
}
