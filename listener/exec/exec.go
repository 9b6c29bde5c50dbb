// Package exec is a runner that lets the operator's own command do the work instead of rsync.
//
// The command is started once for each step of a plan. On standard input it gets the paths, relative to the module and each ended by a NUL byte
// (they may hold any other byte). It runs in the module's directory. Its environment says what to do:
//
//	MIRRORBUS_MODULE   the module's name
//	MIRRORBUS_STAGE    the stage of the plan: content, metadata, delete, ...
//	MIRRORBUS_MODE     what is to be done with the paths, a Mode of package listener/rsync: content, index, level, recursive, delete, full
//	                   (full in the stage content: what is no index, and nothing is to be removed)
//	MIRRORBUS_UPSTREAM the upstream as configured
//	MIRRORBUS_MAX_DELETE  how many names may be deleted, -1 for no limit
//
// Exit status 0 says that it is done, 75 that it may work later, anything else that it failed. It is killed with all it started when it takes
// too long or the agent stops. What it did is compared with the announcement as after rsync.
package exec

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A Runner runs a command for one module.
type Runner struct {
	Argv     []string
	Module   string
	Upstream string
	Dest     string // the module's directory
	Timeout  time.Duration
	Log      *slog.Logger
}

// Run does one step. Verify and fetch are not asked of a command. Indexes are not captured before content comes: that is for a command that
// knows how; errors.ErrUnsupported says so.
func (r *Runner) Run(ctx context.Context, stage string, j rsync.Job) (rsync.Result, error) {
	switch {
	case j.Mode == rsync.Discard:
		return rsync.Result{}, nil
	case j.Way != "" && j.Way != rsync.Place:
		return rsync.Result{}, errors.ErrUnsupported
	}
	started := time.Now()
	paths := strings.Join(j.Paths, "\x00")
	if len(j.Paths) > 0 {
		paths += "\x00"
	}
	err := hook.Command{
		Argv: r.Argv, Dir: r.Dest, Stdin: strings.NewReader(paths), Timeout: r.Timeout, Log: r.Log,
		Env: []string{
			"MIRRORBUS_MODULE=" + r.Module, "MIRRORBUS_STAGE=" + stage, "MIRRORBUS_MODE=" + string(j.Mode), "MIRRORBUS_UPSTREAM=" + r.Upstream,
			"MIRRORBUS_MAX_DELETE=" + strconv.Itoa(j.MaxDelete),
		},
	}.Run(ctx)
	return rsync.Result{Runs: 1, Duration: time.Since(started)}, err
}

// Rename moves what is at from to a new name, as rsync.Runner.Rename does.
func (r *Runner) Rename(from, to string) error {
	root, err := os.OpenRoot(r.Dest)
	if err != nil {
		return err
	}
	if _, there := root.Lstat(to); there == nil {
		err = &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
	} else {
		err = root.Rename(from, to)
	}
	return errors.Join(err, root.Close())
}
