package replay

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// several is a small number, and now and then a larger one.
func (d *Day) several() int {
	if d.rng.IntN(10) == 0 {
		return 20 + d.rng.IntN(150)
	}
	return 1 + d.rng.IntN(6)
}

// content is what a file holds: mostly some kilobytes, now and then nothing or a megabyte.
func (d *Day) content() []byte {
	size := d.rng.IntN(8 << 10)
	switch d.rng.IntN(30) {
	case 0:
		size = 0
	case 1:
		size = 1<<20 + d.rng.IntN(1<<20)
	}
	line := fmt.Appendf(nil, "%016x\n", d.rng.Uint64())
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

// put writes a file beside p and renames it into place.
func (d *Day) put(p string, mode fs.FileMode) error {
	temp := path.Join(path.Dir(p), ".new")
	if err := d.create(temp, mode); err != nil {
		return err
	}
	return os.Rename(d.abs(temp), d.abs(p))
}

func (d *Day) create(p string, mode fs.FileMode) error {
	if err := os.WriteFile(d.abs(p), d.content(), 0o600); err != nil {
		return err
	}
	return os.Chmod(d.abs(p), mode)
}

// eachFile does something to some files.
func (d *Day) eachFile(do func(p string) error) error {
	for range d.several() {
		p, err := d.someFile()
		if err != nil || p == "" {
			return err
		}
		if err := do(p); err != nil {
			return err
		}
	}
	return nil
}

func (d *Day) replace(b *Batch) error {
	return d.eachFile(func(p string) error {
		b.touch(p, content)
		d.leave(p)
		return d.put(p, 0o644)
	})
}

// rewrite writes into files where they are, which all their names show.
func (d *Day) rewrite(b *Batch) error {
	return d.eachFile(func(p string) error {
		b.touchAll(d.mates(p), content)
		return d.create(p, 0o644)
	})
}

// downgrade puts older files in the place of newer ones.
func (d *Day) downgrade(b *Batch) error {
	return d.eachFile(func(p string) error {
		b.touch(p, content)
		d.leave(p)
		then := time.Now().Add(-time.Duration(1+d.rng.IntN(10000)) * time.Hour)
		return errors.Join(d.put(p, 0o644), os.Chtimes(d.abs(p), then, then))
	})
}

func (d *Day) touch(b *Batch) error {
	return d.eachFile(func(p string) error {
		b.touchAll(d.mates(p), content)
		now := time.Now()
		return os.Chtimes(d.abs(p), now, now)
	})
}

// add writes new files in place, in a directory that is there or in new ones.
func (d *Day) add(b *Batch) error {
	dir := d.someDir()
	for range d.rng.IntN(3) {
		dir = path.Join(dir, d.fresh("dir"))
	}
	if err := d.mkdir(b, dir); err != nil {
		return err
	}
	for range d.several() {
		p := path.Join(dir, d.fresh("new"))
		b.touch(p, content)
		if err := d.create(p, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes a directory and what is missing above it.
func (d *Day) mkdir(b *Batch, dir string) error {
	if slices.Contains(d.dirs, dir) {
		return nil
	}
	if err := d.mkdir(b, path.Dir(dir)); err != nil {
		return err
	}
	b.touch(dir, whole)
	d.dirs = append(d.dirs, dir)
	return os.Mkdir(d.abs(dir), 0o755)
}

// crowd writes so many files into one directory that it is announced by its level.
func (d *Day) crowd(b *Batch) error {
	dir := path.Join(d.someDir(), d.fresh("crowd"))
	if err := d.mkdir(b, dir); err != nil {
		return err
	}
	for i := range 1010 + d.rng.IntN(300) {
		p := path.Join(dir, fmt.Sprintf("f%04d", i))
		b.touch(p, content)
		if err := os.WriteFile(d.abs(p), fmt.Appendf(nil, "%d %d", d.made, i), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// grow fills a new tree of directories, faster than anybody sees them appear.
func (d *Day) grow(b *Batch) error {
	top := path.Join(d.someDir(), d.fresh("tree"))
	for range 10 + d.rng.IntN(40) {
		dir := top
		for range d.rng.IntN(5) {
			dir = path.Join(dir, string(rune('a'+d.rng.IntN(4))))
		}
		if err := d.fill(b, dir); err != nil {
			return err
		}
	}
	return nil
}

// release adds content and writes the index that names it.
func (d *Day) release(b *Batch) error {
	if err := d.add(b); err != nil {
		return err
	}
	top := path.Join(d.someDir(), "repodata")
	if fi, err := os.Lstat(d.abs(top)); err == nil && !fi.IsDir() {
		return nil
	}
	if err := d.mkdir(b, top); err != nil {
		return err
	}
	p := path.Join(top, "repomd.xml")
	if fi, err := os.Lstat(d.abs(p)); err == nil && fi.IsDir() {
		return nil
	}
	b.touch(p, content)
	d.leave(p)
	return d.put(p, 0o644)
}

func (d *Day) remove(b *Batch) error {
	return d.eachFile(func(p string) error {
		b.touch(p, content)
		d.forget(p)
		return os.Remove(d.abs(p))
	})
}

func (d *Day) removeDir(b *Batch) error {
	dir, err := d.smallDir()
	if err != nil || dir == "" {
		return err
	}
	b.touch(dir, whole)
	d.forget(dir)
	return os.RemoveAll(d.abs(dir))
}

func (d *Day) rename(b *Batch) error {
	p, err := d.someFile()
	if err != nil || p == "" {
		return err
	}
	to := path.Join(d.someDir(), d.fresh("moved"))
	return d.move(b, p, to)
}

func (d *Day) renameDir(b *Batch) error {
	dir, err := d.smallDir()
	if err != nil || dir == "" {
		return err
	}
	to := path.Join(d.someDir(), d.fresh("moved"))
	if event.Under(dir, to) {
		to = path.Join(path.Dir(dir), path.Base(to))
	}
	return d.move(b, dir, to)
}

// move renames a file or a directory. Hard links between what moved and what stays are named on both sides.
func (d *Day) move(b *Batch, from, to string) error {
	for _, g := range d.links {
		renamed := slices.Clone(g)
		for i, p := range g {
			if p == from || event.Under(from, p) {
				renamed[i] = to + p[len(from):]
			}
		}
		if d.mixed(renamed) && !d.mixed(g) {
			return nil
		}
	}
	if err := os.Rename(d.abs(from), d.abs(to)); err != nil {
		return err
	}
	d.moved(from, to)
	b.touch(from, whole)
	b.touch(to, whole)
	for _, g := range d.links {
		if slices.ContainsFunc(g, func(p string) bool { return p == to || event.Under(to, p) }) {
			b.touchAll(g, content)
		}
	}
	return nil
}

// changeType puts a file, a directory or a symbolic link where something else was.
func (d *Day) changeType(b *Batch) error {
	p, err := d.someEntry(func(e fs.DirEntry) bool { return !e.IsDir() })
	if d.rng.IntN(2) == 0 {
		p, err = d.smallDir()
	}
	if err != nil || p == "" {
		return err
	}
	fi, err := os.Lstat(d.abs(p))
	if err != nil {
		return err
	}
	b.touch(p, whole)
	d.forget(p)
	if err := os.RemoveAll(d.abs(p)); err != nil {
		return err
	}
	if to := d.rng.IntN(3); to == 0 && !fi.Mode().IsRegular() {
		return d.create(p, 0o644)
	} else if to == 1 && !fi.IsDir() {
		return d.fill(b, p)
	}
	targets := []string{"nowhere", ".", "../" + path.Base(path.Dir(p)), "odd\nta\xffrget", "/etc/hostname", "../../../../../../../../../../outside"}
	return os.Symlink(targets[d.rng.IntN(len(targets))], d.abs(p))
}

// fill makes a new directory with files.
func (d *Day) fill(b *Batch, dir string) error {
	if err := d.mkdir(b, dir); err != nil {
		return err
	}
	for range d.rng.IntN(5) {
		if err := d.create(path.Join(dir, d.fresh("in")), 0o644); err != nil {
			return err
		}
	}
	return nil
}
