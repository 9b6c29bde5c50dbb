// Package failpoint names the steps at which a crash is interesting, and lets a test crash there.
//
// A step is marked by Here with its name. In the program as it is shipped that is nothing at all. Built with the tag failpoint, the process kills
// itself with SIGKILL at the n-th passing of the point that the environment variable MIRRORBUS_FAILPOINT names, as in "sync.before:3"; and LeftOut
// tells that a safeguard is to be left out, so that a test can show that it would be missed. Package internal/crash uses both.
package failpoint

// The environment variables that a program with the tag failpoint reads.
const (
	Env        = "MIRRORBUS_FAILPOINT" // NAME:N, the point and at which passing of it the process dies
	EnvLeftOut = "MIRRORBUS_LEAVE_OUT" // the safeguard that is left out
)

// A Daemon says in which process a point lies.
type Daemon string

// The daemons.
const (
	Hub   Daemon = "hub"
	Agent Daemon = "agent"
	Both  Daemon = "both" // each is to be killed there
)

// A Point is a named step.
type Point struct {
	Name    string
	Daemon  Daemon
	Meaning string // what is true when the process dies there
}

// Points are all points.
func Points() []Point {
	return []Point{
		{"publish.asked", Hub, "the paths were looked at, nothing is journalled"},
		{"journal.commit", Hub, "serial, line, path set and outbox rows are written, not committed"},
		{"publish.journalled", Hub, "the announcement is committed, nothing is exported or answered"},
		{"publish.exported", Hub, "entry and head are exported, the transports are not woken"},
		{"export.entry", Hub, "an entry of the journal is about to be exported"},
		{"export.head", Hub, "the entries are exported, the head is not"},
		{"export.headed", Hub, "the head is exported"},
		{"export.shard", Hub, "a shard of the manifest is about to be exported"},
		{"export.index", Both, "the shards are there, the index of the manifest is not"},
		{"export.now", Both, "the index is there, the folder that shows the newest manifest still shows the one before"},
		{"export.manifest", Hub, "the manifest is exported, the journal does not know"},
		{"export.rename", Both, "a file is complete under its temporary name"},
		{"export.prune", Both, "all is exported, what is no longer needed is still there"},
		{"manifest.walked", Hub, "the tree was walked, the new manifest is not committed"},
		{"manifest.apply", Hub, "an announcement is about to be taken into the manifest"},
		{"head.send", Hub, "a head is about to be sent"},
		{"backlog.send", Hub, "a subscriber is about to be told what it missed"},
		{"relay.send", Both, "a message is read from the outbox and not sent"},
		{"relay.sent", Both, "the transport has taken it, the outbox does not know"},
		{"relay.forgotten", Both, "what was sent is gone from the outbox"},
		{"collect.verified", Hub, "a report is verified, not stored"},
		{"collect.stored", Hub, "a report is stored, its sender has no answer"},

		{"receive.verified", Agent, "an announcement is verified, not stored"},
		{"inbox.commit", Agent, "announcement and report are written, not committed"},
		{"receive.stored", Agent, "the announcement is stored, the hub has no answer"},
		{"look.asked", Agent, "the upstream's head is about to be read"},
		{"look.read", Agent, "the head is read, not stored"},
		{"journal.read", Agent, "entries of the upstream's journal are read, none is stored"},
		{"journal.stored", Agent, "some of them are stored"},
		{"compare.read", Agent, "the tree is compared with the manifest, nothing is done about it"},
		{"plan.made", Agent, "a batch is planned"},
		{"rsync.started", Agent, "an rsync has been started and runs on"},
		{"capture.before", Agent, "nothing of the batch is here"},
		{"capture.after", Agent, "the indexes are captured where no reader looks"},
		{"rename.after", Agent, "directories are renamed"},
		{"content.before", Agent, "no content is brought"},
		{"content.after", Agent, "content is brought, no index is in place"},
		{"metadata.before", Agent, "content is complete"},
		{"metadata.after", Agent, "the indexes are in place, nothing is deleted"},
		{"delete.before", Agent, "something is about to be deleted"},
		{"delete.after", Agent, "the tree is as announced, and not checked"},
		{"sync.before", Agent, "the tree is checked, not on disk"},
		{"sync.after", Agent, "the tree is on disk, the inbox does not know"},
		{"applied.commit", Agent, "applied and its report are written, not committed"},
		{"applied.after", Agent, "applied is committed, nobody was told"},
		{"flip.before", Agent, "a flip is due"},
		{"flip.changed", Agent, "its permissions are changed, not on disk"},
		{"flip.synced", Agent, "they are on disk, the inbox does not know"},
		{"have.send", Agent, "the hub is about to be told where the mirror stands"},
	}
}

// A Safeguard can be left out by a program with the tag failpoint, to show that a test notices.
type Safeguard string

// The safeguards.
const (
	Syncfs  Safeguard = "syncfs"  // content is brought to disk before it is called applied
	Durable Safeguard = "durable" // a commit is on disk before it is acknowledged
)
