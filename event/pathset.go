package event

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Caps on a path set: what a decoder refuses before it allocates.
const (
	MaxRecords  = 4_000_000
	MaxSetBytes = 512 << 20 // of the canonical form
)

// minRecord is the size of the smallest record, so that no run of NUL bytes makes a decoder allocate more than real records would.
const minRecord = len("- 0 0 0 - a\x00")

// A PathSet is the changed paths of one announcement, sorted bytewise by path, each path once. It is content-addressed: see Digest.
type PathSet []Record

// NewPathSet sorts records, where they are, and checks them as a set.
func NewPathSet(records []Record) (PathSet, error) {
	s := PathSet(records)
	slices.SortStableFunc(s, func(a, b Record) int { return strings.Compare(a.Path, b.Path) })
	return s, s.Check()
}

// Check says what is wrong with s, or nil: an ill-formed record, wrong order, a path twice, or a path said to be there below one said to be gone.
func (s PathSet) Check() error {
	if len(s) > MaxRecords {
		return malformed("path set of %d records, at most %d", len(s), MaxRecords)
	}
	gone := s.gone()
	for i, r := range s {
		if err := r.Check(); err != nil {
			return malformed("%v", err)
		}
		if i > 0 && s[i-1].Path == r.Path {
			return malformed("path %.200q stands twice", r.Path)
		}
		if i > 0 && s[i-1].Path > r.Path {
			return malformed("path %.200q is out of order", r.Path)
		}
		if above := nearest(gone, r.Path); above != "" && r.Op != Gone {
			return malformed("path %.200q is said to be there, below %.200q which is said to be gone", r.Path, above)
		}
	}
	return nil
}

// gone is the set of paths said to be gone, nil if there are none.
func (s PathSet) gone() map[string]bool {
	var gone map[string]bool
	for _, r := range s {
		if r.Op == Gone {
			if gone == nil {
				gone = map[string]bool{}
			}
			gone[r.Path] = true
		}
	}
	return gone
}

// nearest is the closest directory above path that is in the set, or "".
func nearest[V any](set map[string]V, path string) string {
	for len(set) > 0 {
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return ""
		}
		path = path[:i]
		if _, ok := set[path]; ok {
			return path
		}
	}
	return ""
}

// Digest names the set: the SHA-256 of its canonical form.
func (s PathSet) Digest() Digest { return Sum(s.Encode()) }

// Encode writes the canonical form: for each record `op mode size mtime extra path NUL`, and for a Renamed `old-path NUL` after it.
func (s PathSet) Encode() []byte {
	n := 0
	for _, r := range s {
		n += len(r.Path) + len(r.From) + 48
	}
	b := bytes.NewBuffer(make([]byte, 0, n))
	for _, r := range s {
		r.encode(b)
	}
	return b.Bytes()
}

func (r Record) encode(b *bytes.Buffer) {
	b.WriteByte(byte(r.Op))
	b.WriteByte(' ')
	b.WriteString(strconv.FormatUint(uint64(r.Mode), 8))
	b.WriteByte(' ')
	b.WriteString(strconv.FormatInt(r.Size, 10))
	b.WriteByte(' ')
	b.WriteString(r.MTime.String())
	b.WriteByte(' ')
	b.WriteString(r.extra())
	b.WriteByte(' ')
	b.WriteString(r.Path)
	b.WriteByte(0)
	if r.Op == Renamed {
		b.WriteString(r.From)
		b.WriteByte(0)
	}
}

func (r Record) extra() string {
	var parts []string
	if r.Link != 0 {
		parts = append(parts, "link="+strconv.FormatUint(r.Link, 10))
	}
	if r.Serial != 0 {
		parts = append(parts, "serial="+strconv.FormatUint(uint64(r.Serial), 10))
	}
	if !r.Sum.IsZero() {
		parts = append(parts, "sha256="+r.Sum.String())
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, ",")
}

// DecodePathSet reads a canonical path set. It refuses whatever Encode would not write, so that one set has one form.
func DecodePathSet(b []byte) (PathSet, error) {
	if len(b) > MaxSetBytes {
		return nil, malformed("path set of %d bytes, at most %d", len(b), MaxSetBytes)
	}
	n := bytes.Count(b, []byte{0})
	if n > 2*MaxRecords {
		return nil, malformed("path set of more than %d records", MaxRecords)
	}
	s := make(PathSet, 0, min(n, len(b)/minRecord))
	for len(b) > 0 {
		r, rest, err := decodeRecord(b)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(s)+1, err)
		}
		s, b = append(s, r), rest
	}
	return s, s.Check()
}

func decodeRecord(b []byte) (Record, []byte, error) {
	line, rest, ok := bytes.Cut(b, []byte{0})
	if !ok {
		return Record{}, nil, malformed("cut short, no NUL after the path")
	}
	f := bytes.SplitN(line, []byte{' '}, 6)
	if len(f) != 6 || len(f[0]) != 1 {
		return Record{}, nil, malformed("must be: op mode size mtime extra path")
	}
	mode, err1 := strconv.ParseUint(string(f[1]), 8, 32)
	size, err2 := strconv.ParseInt(string(f[2]), 10, 64)
	mtime, err3 := parseStamp(string(f[3]))
	r := Record{Op: Op(f[0][0]), Mode: uint32(mode), Size: size, MTime: mtime, Path: string(f[5])}
	err4 := r.parseExtra(string(f[4]))
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return Record{}, nil, malformed("path %.200q: %v", r.Path, err)
		}
	}
	if r.Op == Renamed {
		from, more, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return Record{}, nil, malformed("path %.200q: cut short, no NUL after the old name", r.Path)
		}
		r.From, rest = string(from), more
	}
	var again bytes.Buffer
	r.encode(&again)
	if !bytes.Equal(again.Bytes(), b[:len(b)-len(rest)]) {
		return Record{}, nil, malformed("path %.200q: not in canonical form", r.Path)
	}
	return r, rest, nil
}

func (r *Record) parseExtra(s string) error {
	if s == "-" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "link":
			r.Link, err = strconv.ParseUint(value, 10, 64)
		case "serial":
			r.Serial, err = ParseSerial(value)
		case "sha256":
			r.Sum, err = ParseDigest(value)
		default:
			err = fmt.Errorf("extra %.40q is not known to this version", part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
