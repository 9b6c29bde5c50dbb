package replay

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Batch is what one announcement tells.
type Batch struct {
	Kind string // what was done, for people
	Flip bool   // to be announced as a flip

	Prompt bool // to be announced at once

	touched map[string]depth
}

// A depth is how much of a path was touched.
type depth int

const (
	meta    depth = iota + 1 // mode only
	content                  // this inode
	whole                    // it and what is below it
)

func (b *Batch) touch(p string, d depth) { b.touched[p] = max(b.touched[p], d) }

func (b *Batch) touchAll(names []string, d depth) {
	for _, p := range names {
		b.touch(p, d)
	}
}

// Paths are the paths that b touched, sorted.
func (b Batch) Paths() []string { return slices.Sorted(maps.Keys(b.touched)) }

// Hold keeps a batch back, to be announced later.
func (d *Day) Hold(b Batch) { d.held = append(d.held, b) }

// Held hands out the batches that were kept back, oldest first, and forgets them.
func (d *Day) Held() []Batch {
	held := d.held
	d.held = nil
	return held
}

// Names says what is true now of the paths that b touched, as publish --from - takes it. There are none if there is nothing to say any more.
func (d *Day) Names(b Batch) ([]string, error) {
	var names []string
	for _, p := range b.Paths() {
		if b.spokenFor(p) {
			continue
		}
		name, err := d.name(b, p)
		if err != nil {
			return nil, err
		}
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// spokenFor tells whether a directory that b touched as a whole stands above p. Such names may be left out; some are kept, as people do.
func (b Batch) spokenFor(p string) bool {
	for _, above := range ancestors(p)[1:] {
		if b.touched[above] == whole && len(p)%2 == 0 {
			return true
		}
	}
	return false
}

// name is p with the op that says what it is now.
func (d *Day) name(b Batch, p string) (string, error) {
	for _, above := range ancestors(p)[1:] {
		fi, err := os.Lstat(d.abs(above))
		if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			return "", nil // the link speaks for itself
		}
	}
	fi, err := os.Lstat(d.abs(p))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "-" + p, nil
	case err != nil:
		return "", err
	case b.Flip:
		return "./" + p, nil
	case fi.IsDir() && b.touched[p] == whole:
		return "r:" + p, nil
	case b.touched[p] == meta && !d.rewritten(p):
		return "=" + p, nil
	case fi.IsDir():
		return "+" + p, nil
	}
	return "./" + p, nil
}

// rewritten tells whether the content of p was changed by a batch that was kept back.
func (d *Day) rewritten(p string) bool {
	for _, h := range d.held {
		for q, how := range h.touched {
			if q == p && how > meta || how == whole && event.Under(q, p) {
				return true
			}
		}
	}
	return false
}
