package transports

import "context"

// A Question is what somebody says to a process by a transport on which people talk.
type Question struct {
	// Text is a command and what it is about, as "status fedora", or one signed line.
	Text string

	// Account is that of who asks, as the server of the transport vouches for it with this very text; "" if it vouches for none. A nick is none.
	Account string

	// Rights are what the operator of this process lets that account do.
	Rights Rights

	// Alone: it was said to this process alone. Where others listen, what may be meant for somebody else is not answered.
	Alone bool
}

// Rights are what somebody may do by talking to a process.
type Rights int

// The rights, each with those before it.
const (
	MayNothing Rights = iota
	MayAsk            // see what status shows
	MayCommand        // have something announced
)

// A Talk is what a process lends to transports on which people talk. Its zero value says nothing and answers nobody.
type Talk struct {
	// Ask returns the lines to answer with, none if nothing is to be said. The error is for who asks, too.
	Ask func(ctx context.Context, q Question) ([]string, error)

	// Tell says news of modules for people, one line at a time, until ctx is done or say fails.
	Tell func(ctx context.Context, say func(module, text string) error) error
}
