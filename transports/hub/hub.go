// Package hub is the bus that comes with mirrorbus: the master's daemon holds an SSH server and the agents dial out to it, each with its own
// key. It needs no broker, and agents need no address that the master can reach.
//
// PROTOCOL.md in this folder is the normative description. In short: an SSH connection with public-key authentication; on it session channels
// that run one of four commands (subscribe, publish, ping, help) and nothing else; in those, lines of text and counted bodies, simple enough to
// be watched with a stock client:
//
//	ssh -p 2222 mirrorbus@master subscribe v1 announce/debian
//
// The master side ([Server]) keeps nothing on disk. What a subscriber has missed comes from Env.Backlog at the position that it names when it
// subscribes, so a lost connection, a slow reader that was cut off and a restarted master all end the same way: it comes back and resumes.
package hub

import (
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

const (
	clientVersion = "SSH-2.0-mirrorbus"
	serverVersion = "SSH-2.0-mirrorbus"
	userName      = "mirrorbus" // of the agents; the server does not look at it
)

// Driver describes the transport to a registry.
func Driver() transports.Driver {
	return transports.Driver{
		Name:         "hub",
		Capabilities: capabilities,
		Master:       transports.SideOf(DefaultServerConfig, NewServer),
		Mirror:       transports.SideOf(DefaultClientConfig, NewClient),
	}
}

// capabilities: delivery to those who were away needs Env.Backlog, so it is Resumes and neither Durable nor Redelivers.
func capabilities(transports.Role) transports.Capabilities {
	return transports.Capabilities{MaxBody: wire.MaxBody, Ordered: true, Resumes: true}
}

// farewell is how long a peer that is being closed has to take the reason.
const farewell = 2 * time.Second
