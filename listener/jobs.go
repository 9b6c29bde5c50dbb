package listener

import (
	"github.com/mirrorbus/mirrorbus/listener/plan"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// Job is a run of a plan as rsync's runner takes it, for showing it.
func Job(r plan.Run) rsync.Job { return job(r) }
