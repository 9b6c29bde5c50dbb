package listener

import (
	"context"

	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// Rsync makes a Runner of an rsync.Runner, to which the stages are all one.
func Rsync(r *rsync.Runner) Runner { return rsyncRunner{r} }

type rsyncRunner struct{ r *rsync.Runner }

func (r rsyncRunner) Run(ctx context.Context, _ string, j rsync.Job) (rsync.Result, error) {
	return r.r.Run(ctx, j)
}

func (r rsyncRunner) Rename(from, to string) error { return r.r.Rename(from, to) }
