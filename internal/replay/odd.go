package replay

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// oddNames are names that tools trip over: of lists, of patterns, of options, of shells, and this program's own notation.
var oddNames = []string{
	"new\nline", "\n", "carriage\rreturn", "tab\there", " leading", "trailing ", "-dash", "--delete", "-", "+ include", "- exclude", "+plus", "=equals",
	"d:level", "r:tree", "#hash", ";semicolon", "in\xff\xfevalid", "br[ack]ets", "st*r", "qu?stion", "back\\slash", "back\\[slash", "end\\", "[", "\\*",
	"quo\"te'", "$(dollar)`tick`", "\x1b[31mred", "\x01", "größe", "%percent%0a", "...", "a|b", "100%", "~tilde", "key=value", strings.Repeat("long", 63),
}

// odd adds, replaces, moves and removes files and directories with such names.
func (d *Day) odd(b *Batch) error {
	for range 1 + d.rng.IntN(4) {
		p := path.Join(d.someDir(), oddNames[d.rng.IntN(len(oddNames))])
		fi, err := os.Lstat(d.abs(p))
		switch {
		case errors.Is(err, fs.ErrNotExist) && d.rng.IntN(4) == 0:
			err = d.fill(b, p)
		case errors.Is(err, fs.ErrNotExist):
			b.touch(p, content)
			err = d.put(p, 0o644)
		case err == nil:
			err = d.again(b, p, fi)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// again changes what has an odd name already.
func (d *Day) again(b *Batch, p string, fi fs.FileInfo) error {
	to := path.Join(d.someDir(), oddNames[d.rng.IntN(len(oddNames))])
	if _, err := os.Lstat(d.abs(to)); errors.Is(err, fs.ErrNotExist) && d.rng.IntN(2) == 0 && !slices.Contains(ancestors(to), p) {
		return d.move(b, p, to)
	}
	b.touch(p, whole)
	d.forget(p)
	if !fi.IsDir() {
		return os.Remove(d.abs(p))
	}
	return os.RemoveAll(d.abs(p))
}

// ancestors are p and the directories above it.
func ancestors(p string) []string {
	var all []string
	for ; p != "."; p = path.Dir(p) {
		all = append(all, p)
	}
	return all
}
