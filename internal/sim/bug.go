package sim

// A Bug breaks the simulated program on purpose, so that it can be shown that the rules can be broken.
type Bug string

// The bugs, each with the rule that is to find it.
const (
	None               Bug = ""
	AckBeforeCommit    Bug = "a durable queue has its answer before the inbox has committed"               // I4
	AcceptBeforeCommit Bug = "publish returns before the journal has committed"                            // I4
	ReportBeforeSync   Bug = "applied is committed before the content is synced"                           // I5
	NoCheck            Bug = "the tree is not compared with what was announced"                            // I5
	ReplayIsNews       Bug = "an old serial that is heard again becomes where the module stands"           // I5
	NoResume           Bug = "nothing is asked for at a connect, and the upstream's head is not looked at" // I1
	ForgetBeforeAnswer Bug = "a report is forgotten before the hub has answered"                           // I1
	BusyIsFinal        Bug = "an upstream without room is not tried again"                                 // I1
	NoBudgets          Bug = "work is not limited"                                                         // I6
	TwoAtOnce          Bug = "a module does two batches at a time"                                         // I6
	NoJitter           Bug = "all wait the same time"                                                      // I6
	TrustAnybody       Bug = "signatures are not looked at"                                                // I8
	DeafIsCurrent      Bug = "an expired head counts as fresh"                                             // I9
	HoldIgnored        Bug = "a compose on the master is not waited for"                                   // Hold
	FlipAtOnce         Bug = "a flip does not wait for its time"                                           // Flip
)
