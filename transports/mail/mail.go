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
	"fmt"
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
		Config: func(role transports.Role) any {
			if role == transports.Master {
				return DefaultMasterConfig()
			}
			return DefaultMirrorConfig()
		},
		Open:    open,
		Examine: examine,
	}
}

// capabilities: what is not taken stays in the mail server's queue, and mail overtakes mail.
func capabilities(transports.Role) transports.Capabilities {
	return transports.Capabilities{MaxBody: maxBody, Durable: true, Redelivers: true}
}

func open(role transports.Role, config any, env transports.Env) (transports.Transport, error) {
	switch c := config.(type) {
	case *MasterConfig:
		t, err := newTransport(role, c, c.Post, env)
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
	case *MirrorConfig:
		return newTransport(role, c, c.Post, env)
	default:
		return nil, fmt.Errorf("configuration of the %s side is a %T", role, config)
	}
}
