// Package mail is the bus of hosts that can only send and receive mail, and of people who want to read what happens: slow, and it works everywhere.
//
// Out goes one mail for each recipient, over one connection to the host's mail server, which has the queue. In it a person reads what changed; a program
// takes the attachment, which is what was signed, byte for byte. In comes what a mail server hands over on a socket (LMTP), what `mirrorbus receive --mail`
// brings to the same socket, or what lies in a mailbox (IMAP).
//
// Anybody can send a mail. So nothing is ever answered, and what is not ours is taken, counted and dropped: a mail server that is refused something sends
// it back, to whoever's address was forged.
package mail

import (
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Name is that of the driver, and of its section.
const Name = "mail"

// maxBody is the largest message body in bytes. As an attachment it is a third larger, and still far below the 10 MB that mail servers take.
const maxBody = 512 << 10

// Driver describes the transport to a registry.
func Driver() transports.Driver {
	return transports.Driver{
		Name:         Name,
		Capabilities: capabilities,
		Master:       transports.SideOf(DefaultMasterConfig, newMaster),
		Mirror:       transports.SideOf(DefaultMirrorConfig, newMirror),
	}
}

// capabilities: what is not taken stays in the mail server's queue, and mail overtakes mail.
func capabilities(transports.Role) transports.Capabilities {
	return transports.Capabilities{MaxBody: maxBody, Durable: true, Redelivers: true}
}

func newMaster(c MasterConfig, env transports.Env) (*transport, error) {
	t, err := newTransport(transports.Master, &c, c.Post, env)
	if err != nil {
		return nil, err
	}
	for name, address := range c.Mirrors {
		t.names[strings.ToLower(address)] = name
	}
	if len(c.Digest) > 0 {
		t.digests = newDigests(t, c.Digest, c.DigestEvery.Duration)
	}
	return t, nil
}

func newMirror(c MirrorConfig, env transports.Env) (*transport, error) {
	return newTransport(transports.Mirror, &c, c.Post, env)
}
