package eventtest

import (
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// Sketch makes a well-formed path set of any text, for fuzzing: nearly every change of the text makes another set, and names come again and again.
// Each line is an op and a path; of the path only slashes and which of three names count. An upper-case D, M or L is a written directory, metadata of
// a directory, or a file with two names. What would make the set ill formed is left out. The set need not make sense.
func Sketch(text string) event.PathSet {
	gone, all := map[string]bool{}, map[string]event.Record{}
	for line := range strings.SplitSeq(text, "\n") {
		r, ok := sketch(line)
		if _, twice := all[r.Path]; !ok || twice || r.Check() != nil || len(all) == 200 {
			continue
		}
		all[r.Path] = r
		gone[r.Path] = r.Op == event.Gone
	}
	var records []event.Record
	for p, r := range all {
		below := false
		for _, dir := range Parents(p) {
			below = below || gone[dir]
		}
		if !below || r.Op == event.Gone {
			records = append(records, r)
		}
	}
	s, err := event.NewPathSet(records)
	if err != nil {
		return nil
	}
	return s
}

func sketch(line string) (event.Record, bool) {
	if len(line) < 2 {
		return event.Record{}, false
	}
	r := event.Record{Op: event.Op(line[0])}
	switch line[0] {
	case '+', '=':
		r.Mode = event.ModeFile | 0o644
	case 'L':
		r.Op, r.Mode, r.Link = event.Write, event.ModeFile|0o644, 1+uint64(line[1]%2)
	case 'D':
		r.Op, r.Mode = event.Write, event.ModeDir|0o755
	case 'M':
		r.Op, r.Mode = event.Meta, event.ModeDir|0o755
	case 'd', 'r', '>':
		r.Mode = event.ModeDir | 0o755
		if line[1]&4 != 0 && line[0] != '>' {
			r.Mode = 0
		}
	case '-':
		if line[1]&4 != 0 {
			r.Mode = event.ModeDir | 0o755
		}
	default:
		return r, false
	}
	path, from, _ := strings.Cut(line[1:], " ")
	r.Path = name(path)
	if r.Op == event.Renamed {
		r.From = name(from)
	}
	return r, true
}

// name maps what stands between slashes to three names.
func name(s string) string {
	parts := strings.Split(strings.Trim(s, "/"), "/")
	for i, p := range parts {
		n := 0
		for _, c := range []byte(p) {
			n += int(c)
		}
		parts[i] = string(rune('a' + n%3))
	}
	return strings.Join(parts[:min(len(parts), 5)], "/")
}
