package trigger

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// MaxSummed is the size in bytes of the largest file that is read to tell what is in it. Larger indexes change seldom enough without.
const MaxSummed = 32 << 20

// holdsStill is how often a file is read again because it was changed meanwhile.
const holdsStill = 3

// summed is the record of a name, with the sum of what is in it if it is an index: a mirror that fetches one while it changes can tell by that which
// version it got. A file that does not hold still has none; its next announcement is under way.
func (r *resolver) summed(n Name, fi fs.FileInfo) (event.Record, error) {
	for range holdsStill {
		rec, err := r.describe(n, fi)
		if err != nil || rec.Op != event.Write || !fi.Mode().IsRegular() || rec.Size > MaxSummed || r.sums == nil || !r.sums(n.Path) {
			return rec, err
		}
		sum, err := digest(r.root, n.Path)
		if err != nil && !missing(err) {
			return rec, &PathError{n.Path, err, "run the command as a user who may read the module"}
		}
		now, again := r.root.Lstat(n.Path)
		if again != nil {
			return rec, nil
		}
		if err == nil && os.SameFile(fi, now) && fi.Size() == now.Size() && fi.ModTime().Equal(now.ModTime()) {
			rec.Sum = sum
			return rec, nil
		}
		fi = now
	}
	return r.describe(n, fi)
}

func digest(root *os.Root, path string) (event.Digest, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that took its place must not hold us up
	if err != nil {
		return event.Digest{}, err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.LimitReader(f, MaxSummed+1))
	return event.Digest(h.Sum(nil)), errors.Join(err, f.Close())
}
