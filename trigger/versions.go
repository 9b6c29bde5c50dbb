package trigger

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// An announcement that carries an index is to carry, or to follow, all that this version of the index names; and one that says of content that it is gone
// is not to come before an index that names it no more. Who asks for an announcement has found out what belongs to the version that it saw. By the time
// the names are looked at there may be another one, of which nobody knows what it names. So what is announced is the version that was asked for: mirrors
// find a newer one on the master, and wait for the announcement that speaks of that.

// A Version is what lstat said of a file or symbolic link.
type Version struct {
	Mode uint32 `json:"mode"` // st_mode
	Size int64  `json:"size"` // in bytes
	Sec  int64  `json:"sec"`  // of st_mtime
	Nsec int32  `json:"nsec,omitempty"`
}

// VersionOf is the version that fi describes, nil if that is neither a file nor a symbolic link.
func VersionOf(fi fs.FileInfo) *Version {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if kind := fi.Mode().Type(); !ok || kind != 0 && kind != fs.ModeSymlink {
		return nil
	}
	return &Version{st.Mode, st.Size, st.Mtim.Sec, int32(st.Mtim.Nsec)}
}

// versionIn is the version that a record states, nil if it states none.
func versionIn(r event.Record) *Version {
	if kind := r.Mode & event.ModeType; r.Op != event.Write || kind != event.ModeFile && kind != event.ModeLink {
		return nil
	}
	return &Version{r.Mode, r.Size, r.MTime.Sec, r.MTime.Nsec}
}

func (v *Version) record(path string) event.Record {
	return event.Record{Op: event.Write, Mode: v.Mode, Size: v.Size, MTime: event.Stamp{Sec: v.Sec, Nsec: v.Nsec}, Path: path}
}

// Same tells whether two versions have the same content, as far as size and time tell. Permissions change without that.
func (v *Version) Same(o *Version) bool {
	return v != nil && o != nil && v.Mode&event.ModeType == o.Mode&event.ModeType && v.Size == o.Size && v.Sec == o.Sec && v.Nsec == o.Nsec
}

// String writes v for tests and logs.
func (v *Version) String() string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%o %d %d.%09d", v.Mode, v.Size, v.Sec, v.Nsec)
}

func (v *Version) check() error {
	switch kind := v.Mode & event.ModeType; {
	case kind != event.ModeFile && kind != event.ModeLink || v.Mode > math.MaxUint16:
		return fmt.Errorf("mode %o: must be that of a file or a symbolic link", v.Mode)
	case v.Nsec < 0 || v.Nsec > 999_999_999:
		return fmt.Errorf("%d nanoseconds: must be less than a second", v.Nsec)
	}
	return v.record("x").Check()
}

// checkVersion refuses a name whose version makes no sense.
func (n Name) checkVersion(asFound bool) error {
	var err error
	switch {
	case n.As == nil:
		return nil
	case !asFound || n.Op != 0 && n.Op != event.Write:
		err = errors.New("only what is written, and taken as it is found, has a version")
	default:
		err = n.As.check()
	}
	return fault.With(wrap(n.Path, err), fault.Usage, "leave the version out")
}

func wrap(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("path %.200q: %w", path, err)
}

// isIndex tells whether a name is an index of which a certain version is to be announced.
func (f *finder) isIndex(n Name) bool { return n.As != nil && f.sums != nil && f.sums(n.Path) }

// turn orders names: such indexes are looked at last. One that is then still as it was seen names nothing that was found gone before.
func (f *finder) turn(n Name) int {
	if f.isIndex(n) {
		return 1
	}
	return 0
}

// replaced tells whether an index is not what it was when who asks saw it, and has that announced then; fi is what is there now, nil if nothing is. A directory in
// its place is announced as it is, since it may hold what others of the names speak of.
func (f *finder) replaced(n Name, at string, fi fs.FileInfo) bool {
	if !f.isIndex(n) || fi != nil && at == n.Path && n.As.Same(VersionOf(fi)) {
		return false
	}
	f.ahead = true
	if fi != nil && (fi.IsDir() || at != n.Path) {
		return false
	}
	f.seen[n.Path] = true
	f.records = append(f.records, n.As.record(n.Path))
	return true
}

// asSeen undoes, if an index is ahead of what is announced of it, that names are gone which were there when who asks saw them: that index may name them. They
// are announced as they were, or left out where that is not known; that they are gone is the next announcement's.
func (f *finder) asSeen() {
	if !f.ahead {
		return
	}
	clear(f.gone)
	for _, n := range f.lost {
		switch {
		case f.said[n.Path]:
			f.gone[n.Path] = true
		case n.As != nil:
			f.records = append(f.records, n.As.record(n.Path))
		}
	}
}
