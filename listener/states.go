package listener

import "github.com/mirrorbus/mirrorbus/listener/pace"

// A State is the one word that tells where a module of this mirror stands: see [pace.State].
type State = pace.State

// The states; package pace says what each means.
const (
	New         = pace.New
	Current     = pace.Current
	Behind      = pace.Behind
	Syncing     = pace.Syncing
	Composing   = pace.Composing
	Waiting     = pace.Waiting
	Retrying    = pace.Retrying
	Blocked     = pace.Blocked
	Held        = pace.Held
	Quarantined = pace.Quarantined
	Deaf        = pace.Deaf
	Stale       = pace.Stale
)

// States lists all words, the best first.
func States() []State { return pace.States() }
