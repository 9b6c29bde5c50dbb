package rsync

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/filter"
)

// A Mode is what a job does with its paths.
type Mode string

// The modes.
const (
	// Content brings the named files, links and directories (a directory: itself, nothing in it). Parents get the upstream's permissions, so
	// that what is embargoed there does not show here. Names that are hard links of each other stay so only within one run of MaxNames names.
	Content Mode = "content"

	// Index is Content whose files appear together at the end: for files that name other files.
	Index Mode = "index"

	// Level makes each named directory's own level as it is on the upstream, with deletions. What is in its sub-directories is left alone.
	Level Mode = "level"

	// Recursive makes each named directory and everything below as it is on the upstream, with deletions at the end.
	Recursive Mode = "recursive"

	// Delete removes the named paths, and what is below them, that are missing on the upstream. What exists there again is left alone.
	Delete Mode = "delete"

	// Flip sets the permissions of the named paths, and the owners if Config.Owner. It never reads a directory and creates nothing.
	// A file whose size differs is transferred. It may run beside a job of another mode.
	Flip Mode = "flip"

	// Verify changes nothing. Its items say what Content, and for missing paths Delete, would do. It may run beside a job of another mode.
	Verify Mode = "verify"

	// Fetch copies the named files, and directories with what is below, into Job.Into. Missing ones are skipped, links and special files too.
	// It may run beside a job of another mode.
	Fetch Mode = "fetch"

	// Full makes the whole destination as the upstream is. It takes no paths.
	Full Mode = "full"

	// Remove removes the named paths here, whatever the upstream has: files, and directories that are empty once the names in them are gone.
	Remove Mode = "remove"

	// Discard empties the folder of what was set aside. It takes no paths.
	Discard Mode = "discard"
)

// A Way is how a job goes where that is not from the upstream into the destination.
type Way string

// The ways. Aside, Peek and Place are for Index, Survey for Level, Recursive and Full.
const (
	// Aside brings the named files into a folder beside the destination, on its file system, where no reader looks. What the destination has is
	// copied from there and the basis of differences, so what did not change costs nothing on the wire. It stays until Discard or the next Aside.
	Aside Way = "aside"

	// Peek changes nothing. Its items are what Aside would bring again.
	Peek Way = "peek"

	// Place puts what Aside brought into the destination, all files at the end together. Names that are not there are left out. It asks the
	// upstream nothing.
	Place Way = "place"

	// Survey changes nothing. Its items, which Job.Item gets all, are what would be brought, and Deleted what the upstream does not have.
	Survey Way = "survey"
)

// Unlimited is a Job.MaxDelete without a limit.
const Unlimited = -1

// A Job is one piece of work for a Runner.
type Job struct {
	Mode  Mode
	Way   Way
	Paths []string // relative to the module; any bytes but NUL

	// MaxDelete is the most things that may be removed from the mirror, over all runs of the job. 0 means none: a directory in the way of a
	// file then stays and is an error. A run that reaches the limit may already have removed so many.
	MaxDelete int

	// Keep is for Level, Recursive and Full: what the upstream does not have stays. Only what stands in the way of something of another type goes,
	// within MaxDelete.
	Keep bool

	// Filters are rsync filter rules for Level, Recursive and Full; what they exclude is neither transferred nor deleted.
	Filters []string

	Sums func(path string) bool // Aside: of which files to tell the digest, nil for none

	Into    string // Fetch: an absolute folder outside of the destination, made if missing
	MaxSize int64  // Fetch: larger files are skipped, see Result.TooLarge; 0 means no limit

	Checksum bool // Verify: compare content too, which reads all of it on both sides

	// Item is called for each change as soon as rsync has finished it, nil for none. Result.Items holds the first MaxItems in any case.
	Item func(Item)

	// Progress is called from time to time and at least for each item, nil for none. Neither function may block.
	Progress func(Progress)

	together bool // all names in one run, see cut
}

// Progress is how far a running job is.
type Progress struct {
	Items int64 // changes finished
	Bytes int64 // of their content received
	Read  int64 // bytes that the processes of the current run have read, from the network and from disk
}

// writes tells whether the mode changes names or content of the destination and so needs the exclusive lock.
func (m Mode) writes() bool { return m != Flip && m != Verify && m != Fetch && m != ask }

// dry tells whether the job only looks.
func (j Job) dry() bool { return j.Mode == Verify || j.Mode == ask || j.Way == Peek || j.Way == Survey }

// walks tells whether the mode reads directories on the upstream.
func (m Mode) walks() bool { return m == Level || m == Recursive || m == Full }

func (j Job) check() error {
	switch j.Mode {
	case Content, Index, Level, Recursive, Delete, Flip, Verify, Fetch, Full, Remove, Discard:
	default:
		return fmt.Errorf("unknown mode %q", j.Mode)
	}
	whole := j.Mode == Full || j.Mode == Discard
	switch {
	case !j.Way.fits(j.Mode):
		return fmt.Errorf("mode %s cannot go the way %q", j.Mode, j.Way)
	case whole && len(j.Paths) > 0:
		return fmt.Errorf("a %s run takes no paths", j.Mode)
	case !whole && len(j.Paths) == 0:
		return errors.New("no paths: an empty list changes nothing")
	case len(j.Filters) > 0 && !j.Mode.walks():
		return fmt.Errorf("mode %s takes no filters: cut the list instead (rsync ends a run whose list contains an excluded name)", j.Mode)
	case (j.Mode == Fetch) != (j.Into != "") || j.Into != "" && !filepath.IsAbs(j.Into):
		return errors.New("fetch, and only fetch, needs an absolute folder to fetch into")
	case j.MaxDelete < Unlimited || j.MaxSize < 0:
		return errors.New("a limit is negative")
	}
	for _, f := range j.Filters {
		if err := checkFilter(f); err != nil {
			return err
		}
	}
	for _, p := range j.Paths {
		if err := CheckPath(p); err != nil {
			return err
		}
	}
	return nil
}

func (w Way) fits(m Mode) bool {
	switch w {
	case "":
		return true
	case Aside, Peek, Place:
		return m == Index
	case Survey:
		return m.walks()
	}
	return false
}

// deleting is the option that says what a run that reads directories may remove.
func (j Job) deleting() string {
	switch {
	case j.Way == Survey:
		return "--delete"
	case j.Keep:
		return "--force"
	}
	return "--delete-delay"
}

// checkFilter allows the rules that need nothing but themselves: the others read files.
func checkFilter(rule string) error {
	if strings.ContainsAny(rule, "\n\x00") {
		return fmt.Errorf("filter %q: must be one line", rule)
	}
	_, err := filter.Parse([]string{rule})
	return err
}

// args are the options of the mode. left is how many things may still be deleted.
func (r *Runner) args(j Job, left int) []string {
	attributes := "-lptH"
	if r.cfg.Owner {
		attributes = "-lptHogD"
	}
	var args []string
	switch j.Mode {
	case Content, Index:
		args = append(args, attributes, "--force")
	case Level:
		args = append(args, attributes, "-d", j.deleting())
	case Recursive:
		args = append(args, attributes, "-r", j.deleting())
	case Full:
		args = append(args, attributes, "-r", j.deleting(), "--partial-dir="+partialDir)
		if j.Way == "" && !j.Keep {
			args = append(args, "--delay-updates")
		}
	case Delete:
		args = append(args, "-lpt", "--delete-missing-args", "--force", "--existing", "--ignore-existing")
	case Flip:
		args = append(args, "-p"+strings.TrimPrefix(attributes, "-lptH"), "--existing", "--size-only")
	case Verify:
		args = append(args, "-n", attributes)
	case Fetch:
		args = append(args, "-rt", "--ignore-missing-args")
	case ask:
		args = append(args, "-n", "-lpt")
	}
	switch {
	case j.Way == Peek || j.Way == Survey:
		args = append(args, "-n")
	case j.Way == Place:
		args = append(args, "--delay-updates", "--ignore-missing-args")
	case j.Mode == Index && j.Way == "":
		args = append(args, "--delay-updates")
	}
	if j.Checksum {
		args = append(args, "-c")
	}
	if j.MaxSize > 0 {
		args = append(args, "--max-size="+strconv.FormatInt(j.MaxSize, 10))
	}
	if j.Mode.writes() && !j.dry() && j.Way != Aside && left != Unlimited {
		args = append(args, "--max-delete="+strconv.Itoa(left))
	}
	return append(args, r.safety(j)...)
}

// safety are the options that keep the upstream from placing what the mirror does not want.
func (r *Runner) safety(j Job) []string {
	var args []string
	if j.Mode == Fetch {
		return nil
	}
	if !r.cfg.UnsafeLinks {
		args = append(args, "--safe-links")
	}
	if r.cfg.Chmod != "" {
		args = append(args, "--chmod="+r.cfg.Chmod)
	}
	if r.nanoseconds && (j.Mode != Full || j.Way == Survey) && j.Mode != Flip {
		// See a rewrite within one second that kept the size. A mirror made without nanoseconds pays once for each file: both sides read it, the
		// content does not travel. A full run would pay for all files at once; one that only looks reads none.
		args = append(args, "--modify-window=-1")
	}
	return args
}

// partialDir is where a full run keeps what it has of unfinished files, in each directory.
const partialDir = ".rsync-partial"
