// Package transports says what a transport is: the thing that moves opaque signed bytes between a master and its mirrors. It holds what every
// transport shares: limits ([Checked]), reconnecting ([Keep]) and the list to choose from ([Registry]).
//
// A transport is trusted with nothing. It may lose, repeat, reorder, delay and forge messages; serials, signatures and the journal decide what
// is true. So a transport has no state worth keeping: durable sending is package outbox, durable hearing is the receiver's store.
//
// To add one: a folder below this one with a type that satisfies [Transport] and a [Driver] that describes it, one line in package
// transports/all, and one test that runs transporttest.Run against the real server. A transport imports this package and never package event.
package transports

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// A Kind is what a message is about. A transport may route by kind and module, and by nothing else.
type Kind string

// The kinds. What travels under each is described in event/FORMAT.md; a transport does not look.
const (
	Announce Kind = "announce" // master to mirrors: announcements, flips and heads
	Report   Kind = "report"   // mirrors to master: where a mirror stands
)

// A Topic is what one can subscribe to.
type Topic struct {
	Kind   Kind
	Module string // 1 to 60 of [a-z0-9._-], the first a letter or digit
}

func (t Topic) String() string { return string(t.Kind) + "/" + t.Module }

// A Message is one opaque body on a topic.
type Message struct {
	Topic Topic

	// ID names the message: the same for each attempt to send the same body. 1 to 64 of [A-Za-z0-9._-].
	// A transport may use it to drop repeats; it need not carry it.
	ID string

	// Body is 1 to Capabilities.MaxBody bytes of any value. Neither side may change it after handing it over.
	Body []byte

	// From is set on receipt: the peer's name as the transport authenticated it, "" where it cannot.
	// It is for logs, rate limits and routing; authority comes only from the signature inside Body.
	From string
}

// A Subscription is a topic and where its subscriber stands.
type Subscription struct {
	Topic Topic

	// Have returns the subscriber's position in words that only the two ends understand (see Env.Backlog). It is called at each connect.
	// A transport whose Capabilities.Resumes is true delivers what came after that position before anything newer; the others ignore it.
	// nil or "" means: from now on.
	Have func() string
}

// A Transport connects one process to a bus and moves messages. It may lose, repeat and reorder them as its Capabilities say.
// Its methods may be called from several goroutines.
type Transport interface {
	// Run connects, subscribes and hands each message on the subscribed topics to r, one at a time, until ctx is done, the connection is
	// lost or r fails. The error is never nil: it Is context.Cause(ctx) when ctx ended it and r's error when r failed, and it is a
	// Permanent one when trying again as configured cannot help. It does not reconnect (Keep does). When it returns, every goroutine and
	// connection it started has ended. At most one Run of a Transport is under way at a time; it may be run again after it has returned.
	Run(ctx context.Context, subs []Subscription, r Receiver) error

	// Publish returns nil once the next hop has taken responsibility for m. It does not retry (the outbox does) and does not wait for a
	// connection: without one it returns an error that Is ErrNotConnected.
	Publish(ctx context.Context, m Message) error
}

// A BatchPublisher is a transport that sends several messages faster together than one after the other.
type BatchPublisher interface {
	// PublishAll is Publish for each of ms, begun in their order, without waiting for one before the next is sent. The error of each has the
	// place of its message.
	PublishAll(ctx context.Context, ms []Message) []error
}

// A Receiver takes what a Transport delivers.
type Receiver interface {
	// Connected is called when the subscription stands, before any Receive; what was sent earlier may be lost. From now until Run ends the
	// transport has the connection that Publish needs. One that waits to be called calls it again whenever that
	// happens, and one that notices that something may have been lost meanwhile, as after a netsplit, then.
	Connected()

	// Receive takes m, one at a time within a Run. nil means: safe with me, forget it. So does a Refusal: it would be refused again, whoever
	// brings it. Any other error ends the subscription; the transport delivers m again, if it can (Capabilities.Redelivers), in a later Run.
	Receive(ctx context.Context, m Message) error
}

// Capabilities are a transport's promises. They are known before connecting, planned with, and each is checked by transporttest.
type Capabilities struct {
	// MaxBody is the largest Body in bytes that arrives whole.
	MaxBody int

	// Durable: a message accepted by Publish while a subscriber that has once subscribed is away reaches it when it comes back, by the
	// transport alone.
	Durable bool

	// Ordered: one publisher's messages on one topic arrive in the order in which their Publish calls returned.
	Ordered bool

	// Redelivers: a message that Receive refused is delivered again in a later Run.
	Redelivers bool

	// Resumes: Subscription.Have is honoured.
	Resumes bool

	// Broadcast: a Report published by one mirror reaches every subscribed hub, not just one of them.
	Broadcast bool

	// Polled: subscribers come and look at what is there, and nothing goes back. A Report is refused, Permanent and with errors.ErrUnsupported. What
	// they find is worth as much as it is new, so the newest head is published after each announcement too.
	Polled bool
}

// Errors a caller acts on.
var (
	ErrNotConnected = errors.New("not connected")
	ErrTooLarge     = errors.New("message too large for this transport")
	ErrClosed       = errors.New("connection closed by the other side")
)

// A Refusal is a message that will never be taken. A transport whose other side waits for an answer can tell it why (Teller); for all others it is as
// good as taken.
type Refusal struct{ Err error }

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// A Teller is a transport that tells the other side of a Refusal. To others Checked does not show any.
type Teller interface{ TellsRefusals() }

// Permanent marks err as one that the next attempt will meet again unless somebody changes something: a refused key, a wrong password.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

// IsPermanent tells whether err was marked with Permanent.
func IsPermanent(err error) bool {
	var p *permanent
	return errors.As(err, &p)
}

type permanent struct{ err error }

func (p *permanent) Error() string { return p.err.Error() }
func (p *permanent) Unwrap() error { return p.err }

var (
	moduleName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,59}$`)
	messageID  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
)

// Check says what is wrong with m under the limits of c, or nil.
func (c Capabilities) Check(m Message) error {
	switch {
	case m.Topic.Check() != nil:
		return m.Topic.Check()
	case !messageID.MatchString(m.ID):
		return fmt.Errorf("message id %.70q: must be 1 to 64 of [A-Za-z0-9._-]", m.ID)
	case c.Polled && m.Topic.Kind == Report:
		return Permanent(fmt.Errorf("report where others only come and look: %w", errors.ErrUnsupported))
	case len(m.Body) == 0:
		return errors.New("message has no body")
	case len(m.Body) > c.MaxBody:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(m.Body), c.MaxBody)
	}
	return nil
}

// Check says what is wrong with t, or nil.
func (t Topic) Check() error {
	if t.Kind != Announce && t.Kind != Report {
		return fmt.Errorf("topic %.80q: unknown kind", t)
	}
	if !moduleName.MatchString(t.Module) {
		return fmt.Errorf("module name %.70q: must be 1 to 60 of [a-z0-9._-] and begin with a letter or digit", t.Module)
	}
	return nil
}
