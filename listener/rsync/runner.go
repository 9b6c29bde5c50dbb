package rsync

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what a Runner works on. It comes from the mirror's configuration only.
type Config struct {
	Upstream Upstream

	// Dest is the directory that holds the module on this mirror. It must exist: one that is not mounted must not be filled.
	Dest string

	// TempDir holds files until they are complete. It must be on the file system of Dest and outside of it, or be directly in it with a name that
	// begins with TempPrefix. If empty it is the folder TempPrefix-NAME beside Dest. It belongs to the Runner, which empties it.
	TempDir string

	// LockFile is locked with flock(2) while a job changes content; other programs that write to Dest can use it too. Flips lock LockFile.flip.
	LockFile string

	// Features are what Probe found out about the rsync that is installed.
	Features Features

	// Owner keeps owners, groups and special files. It needs root, and a reason.
	Owner bool

	// UnsafeLinks takes over symbolic links that lead out of the module. Without it they are left out.
	UnsafeLinks bool

	// Chmod is applied to permissions that come from the upstream, as in rsync's --chmod. Empty means "ug-s", "none" means as they are.
	Chmod string

	// Links are the symbolic links below Dest that stand for directories of the module.
	Links []Link

	// Stall ends a run that has read no byte for so long, 2 minutes if zero. It is rounded up to seconds.
	Stall time.Duration
}

// TempPrefix begins the names of temporary folders.
const TempPrefix = ".mirrorbus-tmp"

// MaxItems is how many items and notices a Result holds at most.
const MaxItems = 10_000

// A Runner runs jobs for one destination. Its methods may be called from several goroutines.
type Runner struct {
	cfg         Config
	src         source
	nanoseconds bool // both rsync and the file system keep them
}

// A Result is what a job did.
type Result struct {
	Files    int64  // regular files transferred
	Bytes    int64  // of file content received
	Received int64  // bytes received, with the protocol's own
	Deleted  int64  // things removed
	Items    []Item // the first MaxItems changes
	Changes  int64  // how many there were
	Notices  []string
	Unsafe   []string // symbolic links that were left out because they lead out of the module
	TooLarge []string // Fetch: files that were left out because they are larger than Job.MaxSize
	Runs     int      // times rsync was started
	Duration time.Duration

	Captured []Captured // Aside: what is there now of the named paths
}

var chmodWords = regexp.MustCompile(`^[DFugoa+=rwxXst0-7,-]+$`)

// New checks the configuration and returns a Runner. Its errors name the setting and the remedy.
func New(cfg Config) (*Runner, error) {
	src, err := cfg.Upstream.parse()
	if err != nil {
		return nil, err
	}
	if cfg.Features.Binary == "" {
		return nil, errors.New("rsync was not probed: call Probe first")
	}
	if cfg.Dest, err = directory(cfg.Dest); err != nil {
		return nil, fmt.Errorf("destination: %w", err)
	}
	if !filepath.IsAbs(cfg.LockFile) || within(cfg.LockFile, cfg.Dest) {
		return nil, fmt.Errorf("lock file %q: give an absolute path outside of %s", cfg.LockFile, cfg.Dest)
	}
	switch {
	case cfg.Chmod == "":
		cfg.Chmod = "ug-s"
	case cfg.Chmod == "none":
		cfg.Chmod = ""
	case !chmodWords.MatchString(cfg.Chmod):
		return nil, fmt.Errorf("chmod %q: not a list of modes such as ug-s", cfg.Chmod)
	}
	if cfg.Stall <= 0 {
		cfg.Stall = 2 * time.Minute
	}
	r := &Runner{cfg: cfg, src: src}
	roots, err := r.roots()
	if err != nil {
		return nil, err
	}
	r.nanoseconds, err = keepsNanoseconds(roots[0].temp)
	r.nanoseconds = r.nanoseconds && cfg.Features.Nanoseconds
	return r, err
}

// Run does the job. The error, if any, is an *Error; the Result then says what was done until then. Chunks and directories behind links are
// runs of their own: a run in which single paths failed does not hold up the others.
func (r *Runner) Run(ctx context.Context, j Job) (Result, error) {
	started := time.Now()
	res := Result{}
	e := r.run(ctx, j, &res)
	res.Duration = time.Since(started)
	if e != nil {
		return res, e
	}
	return res, nil
}

func (r *Runner) run(ctx context.Context, j Job, res *Result) *Error {
	if err := j.check(); err != nil {
		return bad(BadJob, err)
	}
	lock, e := r.lock(j)
	if e != nil {
		return e
	}
	if lock != nil {
		defer lock.Close() //nolint:errcheck // unlocks; nothing was written
	}
	if j.Mode == Discard {
		return r.discard()
	}
	plan, e := r.plan(j)
	if e != nil {
		return e
	}
	if j.Mode == Remove {
		return r.removeNamed(ctx, j, plan, lock, res)
	}
	var failed *Error
	if len(plan.refused) > 0 {
		failed = &Error{Class: Partial, Code: -1}
		for _, p := range plan.refused {
			failed.addPath(p)
		}
	}
	if err := r.sweep(j, plan); err != nil {
		return bad(Permanent, err)
	}
	for _, part := range plan.parts {
		e := r.do(ctx, j, part, lock, res)
		failed = failed.merge(e)
		if e != nil && gravity[e.Class] == 0 {
			break
		}
	}
	if j.Way == Aside {
		failed = failed.merge(r.captured(j, plan, failed, res))
	}
	if failed == nil {
		return nil
	}
	err := r.sweep(j, plan)
	if failed.Class == DiskFull { // nobody knows whether there will be room for the rest of them
		err = errors.Join(err, plan.forget())
	}
	if err != nil {
		failed.Cause = errors.Join(failed.Cause, err)
	}
	return failed
}

// do brings one part of a plan.
func (r *Runner) do(ctx context.Context, j Job, part part, lock *os.File, res *Result) *Error {
	if j.Mode == Delete && !r.cfg.Features.DeleteMissingArgs {
		return r.deleteHere(ctx, j, part, lock, res)
	}
	e := r.attempt(ctx, j, part, lock, res)
	if e != nil && j.Mode == Delete && e.forbidsDeletion() {
		return r.deleteHere(ctx, j, part, lock, res)
	}
	if e != nil && e.Class == Interrupted && e.Code == 2 { // a file went on from what another of its name had begun
		if err := emptyDir(part.root.unfinished()); err != nil {
			return bad(Permanent, fmt.Errorf("unfinished files: %w", err))
		}
		e = r.attempt(ctx, j, part, lock, res)
	}
	if e != nil && e.Class == Unrequested && part.rejected(e) && !part.trust && r.cfg.Features.TrustSender {
		part.trust = true // rsync took a listed name for a pattern; every name is checked here instead
		e = r.attempt(ctx, j, part, lock, res)
	}
	return e
}

// rejected tells whether the names that rsync refused are names of the list.
func (p part) rejected(e *Error) bool {
	w := newWanted(Content, p.names, false)
	for _, path := range e.Paths {
		name := strings.TrimPrefix(strings.TrimPrefix(path.Path, p.root.link), "/")
		if path.Kind == Rejected && !w.exact[name] && !w.parents[name] {
			return false
		}
	}
	return len(e.Paths) > 0
}

// A Command is one planned start of rsync, for people to read.
type Command struct {
	Argv []string
	List []string // what it reads from its standard input, NUL-separated
}

// Commands returns what Run would start, in order, and the paths it would refuse. Nothing is started or changed.
func (r *Runner) Commands(j Job) ([]Command, []PathError, error) {
	if err := j.check(); err != nil {
		return nil, nil, bad(BadJob, err)
	}
	plan, e := r.plan(j)
	if e != nil {
		return nil, nil, e
	}
	var out []Command
	for _, part := range plan.parts {
		out = append(out, Command{Argv: r.argv(j, part, "mb", j.MaxDelete), List: r.entries(j, part)})
	}
	return out, plan.refused, nil
}

// Sync makes what is in the destination, and behind its links, safe from a power cut. rsync's success alone does not.
func (r *Runner) Sync() error {
	roots, err := r.roots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		d, err := os.Open(root.real)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", root.real, err)
		}
	}
	return nil
}

// environment is all that rsync gets to see: what a remote shell needs, and words and times that do not depend on this host.
func environment(extra ...string) []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, extra...)
}

// lookPath finds the program, with a remedy in the error.
func lookPath(binary string) (string, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return "", fmt.Errorf("%w: install rsync 3.5.0 or newer (apt install rsync, dnf install rsync)", err)
	}
	return filepath.Abs(path)
}

// mark returns 16 random letters and digits.
func mark() string { return rand.Text()[:16] }
