package rsync

import (
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/itemize"
)

// An Op is what rsync did to a path.
type Op string

// The ops.
const (
	Received Op = "received" // content or a new link or directory came
	Changed  Op = "changed"  // only attributes
	Deleted  Op = "deleted"
)

// An Item is one change that rsync has finished.
type Item struct {
	Op     Op
	Path   string // relative to the module
	Dir    bool
	Change string // rsync's itemized form, such as ">f.st......"
	Size   int64  // bytes
	Bytes  int64  // of content received for it
}

// format is the --out-format. The mark is random for each run, so that nothing the upstream says can be taken for an item. %b makes rsync
// print the line after the file has arrived, not before. The name is last because it may contain the separator.
func format(mark string) string { return "--out-format=" + mark + "|%o|%i|%l|%b|%n" }

// parseItem reads a line without its mark. ok is false for what is not an item.
func parseItem(line string) (it Item, ok bool) {
	f := strings.SplitN(line, "|", 5)
	if len(f) != 5 {
		return it, false
	}
	size, err1 := strconv.ParseInt(f[2], 10, 64)
	bytes, err2 := strconv.ParseInt(f[3], 10, 64)
	if err1 != nil || err2 != nil {
		return it, false
	}
	name := itemize.Unescape(f[4])
	it = Item{Op: Changed, Path: strings.TrimSuffix(name, "/"), Dir: strings.HasSuffix(name, "/"), Change: strings.TrimRight(f[1], " "), Size: size, Bytes: bytes}
	switch {
	case f[0] == "del." || itemize.Deleted(f[1]):
		it.Op = Deleted
	case itemize.Made(f[1]):
		it.Op = Received
	}
	return it, true
}

// unsafeLink reads the line that tells of a link that --safe-links leaves out. A name with quotes and an arrow in it may be read wrongly; then
// the link counts as missing.
func unsafeLink(line string) (path string, ok bool) {
	rest, ok := strings.CutPrefix(line, `ignoring unsafe symlink "`)
	if !ok {
		return "", false
	}
	path, _, ok = strings.Cut(rest, `" -> "`)
	return itemize.Unescape(path), ok
}

// tooLarge reads the line that tells of a file which --max-size leaves out.
func tooLarge(line string) (path string, ok bool) {
	path, ok = strings.CutSuffix(line, " is over max-size")
	return itemize.Unescape(path), ok
}

// stats are the figures of --info=stats2 that we use.
type stats struct{ files, literal, received, deleted int64 }

// line reads one line of the figures, and tells whether it was one: those and the frame around them are no notices.
func (s *stats) line(line string) bool {
	name, value, _ := strings.Cut(line, ": ")
	number, _, _ := strings.Cut(value, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err == nil {
		switch name {
		case "Number of regular files transferred":
			s.files = n
		case "Literal data":
			s.literal = n
		case "Total bytes received":
			s.received = n
		case "Number of deleted files":
			s.deleted = n
		}
	}
	for _, frame := range []string{"Number of ", "Total ", "Literal data: ", "Matched data: ", "File list ", "sent ", "total size is ", "receiving "} {
		if strings.HasPrefix(line, frame) {
			return true
		}
	}
	return line == ""
}

// A wanted decides which names a run may speak of.
type wanted struct {
	exact   map[string]bool // listed
	parents map[string]bool // above a listed one
	mode    Mode
	root    bool // the destination of the run itself is listed, as ""
}

func newWanted(mode Mode, names []string, withRoot bool) *wanted {
	w := &wanted{exact: make(map[string]bool, len(names)), parents: map[string]bool{}, mode: mode, root: withRoot}
	for _, n := range names {
		w.exact[n] = true
		for dir := parent(n); dir != "" && !w.parents[dir]; dir = parent(dir) {
			w.parents[dir] = true
		}
	}
	return w
}

// allows tells whether the item is about something that was asked for: a listed path, one of its parents, or what the mode says lies below.
func (w *wanted) allows(it Item) bool {
	if w.mode == Full || w.exact[it.Path] {
		return true
	}
	if it.Path == "." {
		return w.root
	}
	if CheckPath(it.Path) != nil {
		return false
	}
	if it.Op != Deleted && w.parents[it.Path] {
		return it.Dir
	}
	if w.mode == Level && it.Op != Deleted {
		return w.exact[parent(it.Path)]
	}
	if it.Op == Deleted || w.mode == Recursive || w.mode == Fetch {
		for dir := parent(it.Path); ; dir = parent(dir) {
			if w.exact[dir] {
				return true
			}
			if dir == "" {
				return false
			}
		}
	}
	return false
}
