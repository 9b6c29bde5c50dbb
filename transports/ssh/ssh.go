// Package ssh is the push by SSH: the master dials the sshd of each mirror and hands over what it announces to the mirror's forced command, as Debian's
// mirrors have been triggered for twenty years. Mirrors need no connection of their own, no daemon of another kind and no open port but the one of
// sshd; the master needs a key that they let in.
//
// On the mirror a line of authorized_keys allows that key to run one program:
//
//	restrict,command="mirrorbus receive" ssh-ed25519 AAAA… master
//
// `mirrorbus receive` connects what sshd gives it with the socket of the agent, and that is all it does with it. What the two ends say is the protocol of
// the hub (transports/hub/PROTOCOL.md) with the roles of dialling swapped: the mirror says what it has, the master sends what came after that, and
// then what is published. So the master keeps nothing for a mirror that is away.
package ssh

import (
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// Name is that of the driver, and of its section.
const Name = "ssh"

// Driver describes the transport to a registry.
func Driver() transports.Driver {
	return transports.Driver{
		Name:         Name,
		Capabilities: capabilities,
		Master:       transports.SideOf(DefaultMasterConfig, NewMaster),
		Mirror:       transports.SideOf(DefaultMirrorConfig, NewMirror),
	}
}

// capabilities are those of the hub, whose protocol this is: what a mirror has missed comes from the journal.
func capabilities(transports.Role) transports.Capabilities {
	return transports.Capabilities{MaxBody: wire.MaxBody, Ordered: true, Resumes: true}
}
