package replay

import (
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
)

func (d *Day) chmod(b *Batch) error {
	modes := []fs.FileMode{0o644, 0o600, 0o755, 0o664, 0o444, 0o755 | fs.ModeSetuid, 0o640}
	return d.eachFile(func(p string) error {
		b.touchAll(d.mates(p), meta)
		return os.Chmod(d.abs(p), modes[d.rng.IntN(len(modes))])
	})
}

func (d *Day) chmodDir(b *Batch) error {
	modes := []fs.FileMode{0o755, 0o750, 0o700, 0o711, 0o775, 0o555, 0o777 | fs.ModeSticky, 0o775 | fs.ModeSetgid}
	for range 1 + d.rng.IntN(4) {
		dir := d.someDir()
		if dir == "." {
			continue
		}
		b.touch(dir, meta)
		if err := os.Chmod(d.abs(dir), modes[d.rng.IntN(len(modes))]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Day) link(b *Batch) error {
	p, err := d.someFile()
	if err != nil || p == "" {
		return err
	}
	d.links = slices.DeleteFunc(d.links, func(g []string) bool { return len(g) < 2 })
	group := slices.Clone(d.mates(p))
	d.leave(p)
	d.links = slices.DeleteFunc(d.links, func(g []string) bool { return slices.Contains(group, g[0]) })
	for range 1 + d.rng.IntN(3) {
		dir := path.Dir(p)
		if d.rng.IntN(2) == 0 {
			dir = d.someDir()
		}
		other := path.Join(dir, d.fresh("link"))
		if d.mixed([]string{p, other}) {
			continue
		}
		if err := os.Link(d.abs(p), d.abs(other)); err != nil {
			return err
		}
		group = append(group, other)
	}
	if len(group) < 2 {
		return nil
	}
	d.links = append(d.links, group)
	b.touchAll(group, content)
	return nil
}

// breakLink replaces one of several names of an inode.
func (d *Day) breakLink(b *Batch) error {
	if len(d.links) == 0 {
		return nil
	}
	g := d.links[d.rng.IntN(len(d.links))]
	p := g[d.rng.IntN(len(g))]
	b.touch(p, content)
	d.leave(p)
	return d.put(p, 0o644)
}

// leave takes p out of its group of hard links.
func (d *Day) leave(p string) {
	for i, g := range d.links {
		d.links[i] = slices.DeleteFunc(g, func(q string) bool { return q == p })
	}
	d.links = slices.DeleteFunc(d.links, func(g []string) bool { return len(g) < 2 })
}

// hide changes the mode of a directory so that a flip can show it.
func (d *Day) hide(b *Batch) error {
	dir := d.someDir()
	if dir == "." || slices.Contains(d.hidden, dir) {
		return nil
	}
	b.touch(dir, meta)
	d.hidden = append(d.hidden, dir)
	return os.Chmod(d.abs(dir), 0o750)
}

// flip shows something hidden. What was not announced yet cannot be flipped.
func (d *Day) flip(b *Batch) error {
	i := d.rng.IntN(len(d.hidden))
	dir := d.hidden[i]
	for _, h := range d.held {
		for p := range h.touched {
			if p == dir || event.Under(p, dir) {
				return nil
			}
		}
	}
	d.hidden = slices.Delete(d.hidden, i, i+1)
	b.Kind, b.Flip = "flip", true
	b.touch(dir, meta)
	return os.Chmod(d.abs(dir), 0o755)
}
