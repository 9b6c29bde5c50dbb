package event

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An Op says what is true of a path now, not what happened to it.
type Op byte

// The ops.
const (
	Write   Op = '+' // this one inode was written: content and metadata
	Meta    Op = '=' // this one inode's metadata changed; of a directory never what is below it
	Gone    Op = '-' // the path, and all that was below it, is gone
	Level   Op = 'd' // this directory and its own entries are as they are now; what it does not hold is gone
	Tree    Op = 'r' // this directory and everything below it, likewise
	Renamed Op = '>' // a Tree that used to be called From; a mirror that has From renames first and then makes sure
)

// A Record is one line of a path set or of a manifest.
type Record struct {
	Op     Op
	Mode   uint32 // st_mode: type and permission bits; 0 where not stated (Gone, and directories named in place of their entries)
	Size   int64  // st_size in bytes of a regular file or symbolic link, else 0
	MTime  Stamp  // st_mtime
	Path   string // clean, relative to the module; any bytes but NUL
	From   string // Renamed only: the old path
	Link   uint64 // records with the same number other than 0 are names of one inode
	Sum    Digest // SHA-256 of the content, where it was taken
	Serial Serial // manifest only: the serial that last touched the path
}

// A Stamp is a file time: seconds since 1970 and nanoseconds.
type Stamp struct {
	Sec  int64
	Nsec int32
}

// Time converts.
func (s Stamp) Time() time.Time { return time.Unix(s.Sec, int64(s.Nsec)) }

// StampOf converts.
func StampOf(t time.Time) Stamp { return Stamp{t.Unix(), int32(t.Nanosecond())} }

// Agrees tells whether two stamps may be of the same write: nanoseconds count only where both sides have them, since some file systems and
// old rsync versions keep whole seconds.
func (s Stamp) Agrees(o Stamp) bool {
	return s.Sec == o.Sec && (s.Nsec == o.Nsec || s.Nsec == 0 || o.Nsec == 0)
}

// String writes seconds, and a point and nine digits if there are nanoseconds.
func (s Stamp) String() string {
	if s.Nsec == 0 {
		return strconv.FormatInt(s.Sec, 10)
	}
	return fmt.Sprintf("%d.%09d", s.Sec, s.Nsec)
}

func parseStamp(s string) (Stamp, error) {
	whole, frac, hasFrac := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	st := Stamp{Sec: sec}
	if err == nil && hasFrac {
		var n int64
		n, err = strconv.ParseInt(frac, 10, 32)
		st.Nsec = int32(n)
	}
	if err != nil || st.Nsec < 0 || st.String() != s {
		return Stamp{}, fmt.Errorf("time %.40q: must be seconds or seconds.nanoseconds", s)
	}
	return st, nil
}

// The file types in Record.Mode, as in stat(2).
const (
	ModeType = 0o170000
	ModeDir  = 0o040000
	ModeFile = 0o100000
	ModeLink = 0o120000
)

// IsDir tells whether the record states a directory.
func (r Record) IsDir() bool {
	return r.Mode&ModeType == ModeDir || r.Op == Level || r.Op == Tree
}

// Spans tells whether the record speaks for the entries of its path too.
func (r Record) Spans() bool {
	return r.Op == Level || r.Op == Tree || r.Op == Renamed || r.Op == Gone
}

// ExportDir is the folder of a module that belongs to mirrorbus. It is never announced.
const ExportDir = ".mirrorbus"

// Caps on paths. rsync silently cuts a listed name at 4095 bytes; a component over 255 exists on no common file system.
const (
	MaxPath      = 4095
	MaxComponent = 255
)

// CheckPath says what is wrong with a path of a record, or nil. A path is relative to the module, clean, and stays inside it.
func CheckPath(p string) error {
	switch {
	case p == "":
		return fmt.Errorf("path is empty")
	case len(p) > MaxPath:
		return fmt.Errorf("path %.40q...: %d bytes long, at most %d", p, len(p), MaxPath)
	case p[0] == '/':
		return fmt.Errorf("path %.200q: must be relative to the module, without a leading slash", p)
	case strings.IndexByte(p, 0) >= 0:
		return fmt.Errorf("path %.200q: holds a NUL byte", p)
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "":
			return fmt.Errorf("path %.200q: has an empty component; write it without double or trailing slashes", p)
		case part == "." || part == "..":
			return fmt.Errorf("path %.200q: has a component %q; name the path itself", p, part)
		case len(part) > MaxComponent:
			return fmt.Errorf("path %.200q...: a component of %d bytes, at most %d", p, len(part), MaxComponent)
		}
	}
	if p == ExportDir || strings.HasPrefix(p, ExportDir+"/") {
		return fmt.Errorf("path %.200q: %s belongs to mirrorbus and is not announced", p, ExportDir)
	}
	return nil
}

// Check says what is wrong with r, or nil.
func (r Record) Check() error {
	if err := CheckPath(r.Path); err != nil {
		return err
	}
	switch r.Op {
	case Write, Meta, Gone, Level, Tree:
		if r.From != "" {
			return fmt.Errorf("path %.200q: op %c with an old name", r.Path, r.Op)
		}
	case Renamed:
		if err := CheckPath(r.From); err != nil {
			return fmt.Errorf("old name: %w", err)
		}
		if r.From == r.Path || Under(r.From, r.Path) || Under(r.Path, r.From) {
			return fmt.Errorf("path %.200q: renamed from %.200q, one lies in the other", r.Path, r.From)
		}
	default:
		return fmt.Errorf("path %.200q: unknown op %q", r.Path, string(rune(r.Op)))
	}
	if r.Mode > 0o177777 || r.Size < 0 {
		return fmt.Errorf("path %.200q: mode or size out of range", r.Path)
	}
	if (r.Op == Level || r.Op == Tree || r.Op == Renamed) && r.Mode != 0 && r.Mode&ModeType != ModeDir {
		return fmt.Errorf("path %.200q: op %c on what is not a directory", r.Path, r.Op)
	}
	return nil
}

// Under tells whether path lies below dir.
func Under(dir, path string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}
