// Package poll is for mirrors that cannot be called and cannot call the hub: the master shows where it stands, and they come and look. FORMAT.md in this
// folder says what is shown.
//
// There are three places to look at, and each alone is enough. A head is a small file, which every web server has that serves the tree. A feed (Atom) holds
// the newest announcements as well, and people read it with the program that they read other feeds with. A name in the DNS costs a mirror one packet each way,
// and the master nothing, as others keep what was asked.
//
// Whoever shows something may show an old state of it, or none. So what was seen before is remembered only to be spared, and whoever looks tells "no news"
// from "cannot tell": the first is an answer, the second is an error with a time since when.
package poll

import (
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// Name is that of the driver, and of its section.
const Name = "poll"

// maxBody is the largest body in bytes: the longest line with its line feed. Path sets are not shown, see words.HasSet.
const maxBody = words.MaxLine + 1

// Driver describes the transport to a registry.
func Driver() transports.Driver {
	return transports.Driver{
		Name:         Name,
		Capabilities: capabilities,
		Master:       transports.SideOf(DefaultMasterConfig, newMaster),
		Mirror:       transports.SideOf(DefaultMirrorConfig, newMirror),
	}
}

// capabilities: who was away sees what is shown by then, not all that was; and several places have no order among them.
func capabilities(transports.Role) transports.Capabilities {
	return transports.Capabilities{MaxBody: maxBody, Polled: true}
}
