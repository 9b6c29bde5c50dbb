// Package all is the list of transports that the program has: one line each. It is the only place that imports them all.
package all

import (
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
	"github.com/mirrorbus/mirrorbus/transports/hub"
	"github.com/mirrorbus/mirrorbus/transports/irc"
	"github.com/mirrorbus/mirrorbus/transports/mail"
	"github.com/mirrorbus/mirrorbus/transports/poll"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// Registry returns the list, the embedded default first.
func Registry() transports.Registry {
	return transports.Registry{
		hub.Driver(),
		amqp.Driver(),
		ssh.Driver(),
		irc.Driver(),
		mail.Driver(),
		poll.Driver(),
	}
}
