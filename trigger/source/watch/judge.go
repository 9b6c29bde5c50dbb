package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

// A Name is what may have changed, for the hub to look at.
type Name struct {
	Op   event.Op // 0: this name; Gone: this name, which is gone; Tree: and everything below; Renamed: likewise, and it was called From
	Path string
	From string
	As   *trigger.Version // what it was when it was seen, nil if that does not matter
}

// A look is what a name is.
type look struct {
	there bool
	dir   bool
	file  bool // a regular file with one name
	size  int64
	mtime time.Time
}

// lookAt looks at a name below root. What cannot be looked at is taken for something that is there: the hub will say what is wrong with it.
func lookAt(root, path string) look {
	fi, err := os.Lstat(filepath.Join(root, path))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return look{}
	case err != nil:
		return look{there: true}
	}
	l := look{there: true, dir: fi.IsDir(), size: fi.Size(), mtime: fi.ModTime()}
	st, ok := fi.Sys().(*syscall.Stat_t)
	l.file = fi.Mode().IsRegular() && ok && st.Nlink == 1
	return l
}

// openEvery is how long after a look at a file that somebody writes it is looked at again. One that did not change meanwhile is announced as it is.
const openEvery = 500 * time.Millisecond

// hiddenEvery is how long a name waits that something was mounted over.
const hiddenEvery = 5 * time.Second

// A judge looks at what is about to be announced, and decides what of it is.
type judge struct {
	timing Timing
	rules  *rules.Rules
	now    time.Time
	force  bool // announce what is being written too
	at     func(path string) look
	walk   func(dir string, each func(path string, isDir bool)) // everything below dir
	hidden func(path string) bool                               // something was mounted over it

	names []Name
	of    []entry  // what each of names came of
	held  []entry  // until when is in each
	slow  []string // announced although they are being written

	gone   string          // the last directory that is gone
	told   string          // the last directory that is announced with all below
	spoken map[string]bool // old names, which their new names speak for
	said   map[string]bool // what was found by walking
}

// run judges entries, which lie as take returns them.
func (j *judge) run(out []entry) {
	j.spoken, j.said = map[string]bool{}, map[string]bool{}
	for _, e := range out { // new names first, wherever they lie
		if e.from != "" {
			j.renamed(e)
		}
	}
	for _, e := range out {
		if j.spoken[e.path] {
			j.gone = e.path
		} else if e.from == "" {
			j.one(e)
		}
	}
}

// renamed judges a directory that had another name.
func (j *judge) renamed(e entry) {
	is, was := j.at(e.path), j.at(e.from)
	switch {
	case j.hidden(e.path) || j.hidden(e.from):
		j.hold(e, hiddenEvery)
	case !is.dir: // it went on
		j.say(e, Name{Path: e.path})
	case was.there || !j.rules.All(): // something else has the old name, or not everything below may be announced
		j.tree(e)
	default:
		j.say(e, Name{Op: event.Renamed, Path: e.path, From: e.from})
		j.spoken[e.from] = true
	}
}

// one judges any other name.
func (j *judge) one(e entry) {
	if j.gone != "" && event.Under(j.gone, e.path) {
		return // told by what is above
	}
	if j.hidden(e.path) {
		j.hold(e, hiddenEvery)
		return
	}
	if e.left && !j.at(e.path).there {
		if e.whole {
			j.gone = e.path
		}
		if j.told != "" && event.Under(j.told, e.path) {
			return // it went with what was above
		}
	}
	switch {
	case (e.tree || e.whole) && j.at(e.path).dir:
		j.tree(e)
	case e.open && !j.force && j.writing(e):
		j.hold(e, openEvery)
	default:
		j.say(e, Name{Path: e.path})
	}
}

// writing tells whether a file is being written. One that is written for longer than HotAtMost is announced as it is.
func (j *judge) writing(e entry) bool {
	l := j.at(e.path)
	if !l.file || l == e.seen { // a hard link, or made by other means than open
		return false
	}
	if j.now.Sub(e.since) >= j.timing.HotAtMost && !temporary.MatchString(e.path) {
		j.slow = append(j.slow, e.path)
		return false
	}
	e.seen = l
	return true
}

func (j *judge) hold(e entry, wait time.Duration) {
	e.until = j.now.Add(wait)
	j.held = append(j.held, e)
}

// temporary are names as rsync gives them to what it receives, and will rename: .name.XXXXXX.
var temporary = regexp.MustCompile(`(^|/)\.[^/]+\.[A-Za-z0-9]{6}$`)

// tree says that everything below a directory may be new: in one word, or name by name where not all of it may be announced.
func (j *judge) tree(e entry) {
	if j.rules.All() {
		j.say(e, Name{Op: event.Tree, Path: e.path})
		j.told = e.path
		return
	}
	if j.rules.Announced(e.path, true) {
		j.say(e, Name{Path: e.path})
	}
	j.walk(e.path, func(path string, dir bool) {
		if j.rules.Announced(path, dir) {
			j.say(e, Name{Path: path})
			j.said[path] = true
		}
	})
}

// say has a name announced, once.
func (j *judge) say(e entry, n Name) {
	if j.said[n.Path] {
		return
	}
	j.names = append(j.names, n)
	j.of = append(j.of, e)
}

// below calls each for everything below dir, as far as it can be read. Directories that no rule wants looked into are left alone.
func below(root string, r *rules.Rules, dir string, each func(path string, isDir bool)) {
	top := filepath.Join(root, dir)
	_ = filepath.WalkDir(top, func(full string, d fs.DirEntry, err error) error { // whatever err is, the rest is walked
		if err != nil || full == top {
			return nil
		}
		path := full[len(root)+1:]
		each(path, d.IsDir())
		if d.IsDir() && !r.Enters(path) {
			return fs.SkipDir
		}
		return nil
	})
}
