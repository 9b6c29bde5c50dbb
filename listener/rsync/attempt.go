package rsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mirrorbus/mirrorbus/internal/itemize"
)

// An attempt is one start of rsync and what it said.
type attempt struct {
	job    Job
	part   part
	src    source
	wanted *wanted
	mark   string
	res    *Result
	stats  stats
	paths  Error // only its path errors
	said   bytes.Buffer
	tail   []string
	strays []string // names nobody asked for

	mu sync.Mutex // held to change or read res.Changes: the watchdog tells the progress too
}

// How much of what rsync says is kept.
const (
	maxSaid = 64 << 10 // bytes, to classify with
	maxTail = 20       // lines, for people
)

// attempt runs rsync for one part and adds what it did to res.
func (r *Runner) attempt(ctx context.Context, j Job, p part, lock *os.File, res *Result) *Error {
	a := &attempt{job: j, part: p, src: r.src, mark: mark(), res: res, wanted: newWanted(j.Mode, p.names, p.setsRoot(j.Mode) || p.alone)}
	left := j.MaxDelete
	if left != Unlimited {
		left = max(left-int(res.Deleted), 0)
	}
	c := &command{
		argv: r.argv(j, p, a.mark, left), env: environment(), lock: lock, stall: r.cfg.Stall,
		stdout: a.out, stderr: a.err, tick: func(read int64) { a.progress(read) },
	}
	if list := r.entries(j, p); len(list) > 0 {
		c.list = []byte(strings.Join(list, "\x00") + "\x00")
	}
	res.Runs++
	code, err := c.run(ctx)
	if j.Way != Peek && j.Way != Survey {
		res.Files += a.stats.files
	}
	res.Received += a.stats.received
	if !j.dry() {
		res.Bytes += a.stats.literal
	}
	return a.outcome(code, err)
}

// out takes one line of standard output.
func (a *attempt) out(line string) error {
	rest, marked := strings.CutPrefix(line, a.mark+"|")
	if !marked {
		a.notice(line)
		return nil
	}
	it, ok := parseItem(rest)
	if !ok {
		return fmt.Errorf("rsync printed %.200q, which is not an item", rest)
	}
	if !a.wanted.allows(it) {
		a.strays = append(a.strays, it.Path)
		return fmt.Errorf("the upstream sent %.300q, which nobody asked for", it.Path)
	}
	if it.Path == "." {
		it.Path = ""
	}
	it.Path = join(a.part.root.link, it.Path)
	a.item(it)
	return nil
}

func (a *attempt) item(it Item) {
	a.mu.Lock()
	a.res.Changes++
	a.mu.Unlock()
	if it.Op == Deleted && !a.job.dry() {
		a.res.Deleted++
	}
	if len(a.res.Items) < MaxItems {
		a.res.Items = append(a.res.Items, it)
	}
	if a.job.Item != nil {
		a.job.Item(it)
	}
	a.progress(0)
}

func (a *attempt) progress(read int64) {
	if a.job.Progress == nil {
		return
	}
	a.mu.Lock()
	p := Progress{Items: a.res.Changes, Bytes: a.res.Bytes, Read: read}
	a.mu.Unlock()
	a.job.Progress(p)
}

// notice takes a line that is not about an item: figures, or words that nobody turned into an exit status.
func (a *attempt) notice(line string) {
	if a.stats.line(line) {
		return
	}
	if p, ok := pathError(line); ok && a.job.Mode == Delete {
		p.Path = a.locate(p.Path)
		a.paths.addPath(p)
		return
	}
	if link, ok := unsafeLink(line); ok {
		a.res.Unsafe = append(a.res.Unsafe, a.locate(link))
		return
	}
	if name, ok := tooLarge(line); ok && a.job.MaxSize > 0 {
		if len(a.res.TooLarge) < MaxItems {
			a.res.TooLarge = append(a.res.TooLarge, join(a.part.root.link, name))
		}
		return
	}
	if strings.HasPrefix(line, "created directory ") {
		return
	}
	if len(a.res.Notices) < MaxItems {
		a.res.Notices = append(a.res.Notices, itemize.Unescape(line))
	}
}

// err takes one line of standard error.
func (a *attempt) err(line string) {
	if line == "" {
		return
	}
	if p, ok := pathError(line); ok {
		p.Path = a.locate(p.Path)
		a.paths.addPath(p)
	}
	if a.said.Len() < maxSaid {
		a.said.WriteString(line + "\n")
	}
	if a.tail = append(a.tail, line); len(a.tail) > maxTail {
		a.tail = a.tail[1:]
	}
}

// outcome turns the end of rsync into an error, nil if all was done.
func (a *attempt) outcome(code int, err error) *Error {
	e := &Error{Code: code, Paths: a.settle(), Omitted: a.paths.Omitted, Stderr: a.tail, Cause: err}
	switch {
	case len(a.strays) > 0:
		e.Class = Unrequested
		e.Paths = []PathError{{Path: a.strays[0], Kind: Rejected, Text: "was not asked for"}}
	case errors.Is(err, errStalled):
		e.Class = Timeout
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		e.Class = Interrupted
	case err != nil:
		e.Class = Permanent
		if code == -1 && a.said.Len() > 0 {
			e.Class = Interrupted
		}
	default:
		e.Class = classify(code, a.said.String(), e.Paths)
		settled := len(e.Paths) == 0 && e.Omitted == 0 && len(a.paths.Paths) > 0
		if settled && e.Class == Partial || a.job.Mode == Delete && e.Class == Vanished && len(e.Paths) == 0 {
			return nil
		}
	}
	if e.Class == "" {
		return nil
	}
	return e
}

// settle returns the path errors that matter in the job's mode.
func (a *attempt) settle() (left []PathError) {
	for _, p := range a.paths.Paths {
		absent := !p.Local && (p.Kind == NotFound || p.Kind == NotDir || p.Kind == Gone)
		switch {
		case absent && a.job.Mode == Delete && (p.Kind == Gone || !a.here(p.Path)):
			// it is gone on both sides
		case absent && a.job.Mode == Verify:
			if a.here(p.Path) {
				a.item(Item{Op: Deleted, Path: p.Path, Change: "*deleting"})
			}
		default:
			left = append(left, p)
		}
	}
	return left
}

// here tells whether the path exists on the mirror. Its parents are no links: those were refused before.
func (a *attempt) here(path string) bool {
	name := strings.TrimPrefix(strings.TrimPrefix(path, a.part.root.link), "/")
	dir, err := os.OpenRoot(a.part.root.real)
	if err != nil {
		return false
	}
	defer dir.Close() //nolint:errcheck // only read from
	_, err = dir.Lstat(name)
	return err == nil
}

// locate turns a name as rsync prints it in a message into a path of the module. Messages hold the name as the side that failed sees it.
func (a *attempt) locate(name string) string {
	root := a.part.root
	remote := join(a.src.folder, root.link)
	if !a.src.daemon {
		if i := strings.Index(a.src.url, ":/"); i >= 0 {
			remote = join(strings.Trim(a.src.url[i+1:], "/"), remote)
		}
	}
	rest := strings.TrimPrefix(name, "/")
	if temp := strings.TrimPrefix(root.temp, "/"); below(rest, temp) {
		return a.temporary(rest)
	}
	for _, prefix := range []string{strings.TrimPrefix(root.real, "/"), remote} {
		if prefix != "" && rest != prefix && below(rest, prefix) {
			rest = rest[len(prefix)+1:]
			break
		}
	}
	for try := rest; try != ""; {
		if a.wanted.exact[try] || a.wanted.parents[try] || a.wanted.allows(Item{Op: Received, Path: try, Dir: true}) {
			return join(root.link, try)
		}
		_, try, _ = strings.Cut(try, "/")
	}
	return name
}

// temporary finds the listed path whose temporary name is name: its last component and a dot and six letters.
func (a *attempt) temporary(name string) string {
	base := filepath.Base(name)
	base = base[:max(len(base)-7, 0)]
	found := ""
	for _, n := range a.part.names {
		if filepath.Base(n) == base {
			if found != "" {
				return base // two files of this name: do not guess
			}
			found = n
		}
	}
	if found == "" {
		return base
	}
	return join(a.part.root.link, found)
}
