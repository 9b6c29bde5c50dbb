package transports

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"

	"golang.org/x/crypto/ssh"
)

// A Role is the side of the bus that a process is on.
type Role string

// The roles.
const (
	Master Role = "master" // the hub daemon: publishes announcements, subscribes to reports
	Mirror Role = "mirror" // the agent: subscribes to announcements, publishes reports
)

// Env is what a process lends to its transports. A transport uses what it needs and keeps nothing else.
type Env struct {
	// Self is this process's stable name on the bus.
	Self string

	Log *slog.Logger

	// Signer is the process's own SSH key, for transports that authenticate with one.
	Signer ssh.Signer

	// PeerName tells whose key this is, or an error that says why it is not welcome (unknown, revoked, expired).
	PeerName func(key ssh.PublicKey) (string, error)

	// Allowed says whether the named peer may do this: subscribe to the topic, or else publish on it. The peer "" is anybody. nil means yes.
	Allowed func(peer string, t Topic, subscribe bool) error

	// Backlog yields what a subscriber at position have has missed on a topic, oldest first, then ends. Transports with Resumes use it on
	// the publishing side. nil means there is none.
	Backlog func(ctx context.Context, t Topic, have string) iter.Seq2[Message, error]

	// Talk is for transports on which people talk.
	Talk Talk

	// Bookmarks is where a transport that reads a log keeps its position. nil means that there is no place for it.
	Bookmarks Bookmarks

	// Modules are the names of those that this process has to do with. Only an Examiner needs them: a Run has its subscriptions.
	Modules []string
}

// A SendsNothing is the configuration of a transport by which this process only hears: reports do not wait for it.
type SendsNothing interface{ SendsNothing() }

// Bookmarks keeps a few short texts for transports, durably. The names begin with that of the driver.
type Bookmarks interface {
	// Bookmark returns what was kept under the name, "" if nothing was.
	Bookmark(ctx context.Context, name string) (string, error)

	// SetBookmark keeps a text under the name in place of what was kept there.
	SetBookmark(ctx context.Context, name, text string) error
}

// A Driver describes one transport to the registry.
type Driver struct {
	Name string // the name of its section in the configuration, and of the transport in status and logs

	// Capabilities of the transport on this side of the bus.
	Capabilities func(Role) Capabilities

	// Master and Mirror are the two sides of the bus. The zero Side says that the transport has none there.
	Master, Mirror Side
}

// A Side is what one role has of a transport. SideOf makes one.
type Side struct {
	defaults func() any
	open     func(config any, env Env) (Transport, error)
	examines bool // what open makes is an Examiner
}

// SideOf is the side of a transport with configurations of type C: defaults returns a new one, and open makes a transport of one that the operator has filled.
// open checks the configuration and touches no network.
func SideOf[C any, T Transport](defaults func() *C, open func(C, Env) (T, error)) Side {
	var made T
	_, examines := any(made).(Examiner)
	return Side{
		examines: examines,
		defaults: func() any { return defaults() },
		open: func(config any, env Env) (Transport, error) {
			c, ok := config.(*C)
			if !ok {
				return nil, fmt.Errorf("the configuration is a %T, want %T", config, c)
			}
			t, err := open(*c, env)
			if err != nil {
				return nil, err
			}
			return t, nil
		},
	}
}

func (d Driver) side(role Role) Side {
	if role == Master {
		return d.Master
	}
	return d.Mirror
}

// Config returns a pointer to a new typed configuration holding the defaults, or nil if the transport has no such side.
func (d Driver) Config(role Role) any {
	if s := d.side(role); s.defaults != nil {
		return s.defaults()
	}
	return nil
}

// Open makes a transport from what Config returned, filled by the operator. It checks the configuration and touches no network.
func (d Driver) Open(role Role, config any, env Env) (Transport, error) {
	s := d.side(role)
	if s.open == nil {
		return nil, fmt.Errorf("transport %s has no %s side", d.Name, role)
	}
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	env.Log = env.Log.With("transport", d.Name)
	t, err := s.open(config, env)
	if err != nil {
		return nil, fmt.Errorf("transport %s: %w", d.Name, err)
	}
	return t, nil
}

// An Examiner is a transport that can look at the other side as this process sees it, for `mirrorbus doctor`. It does not run, and changes nothing.
type Examiner interface {
	Examine(ctx context.Context) []Finding
}

// Examine opens a transport and has it look at the other side. Of one that is no Examiner, which need not be possible to open without all that it is lent,
// there is nothing to say.
func (d Driver) Examine(ctx context.Context, role Role, config any, env Env) []Finding {
	if !d.side(role).examines {
		return nil
	}
	t, err := d.Open(role, config, env)
	if err != nil {
		return []Finding{Bad("configuration", "its text says what to change", err)}
	}
	if e, ok := t.(Examiner); ok {
		return e.Examine(ctx)
	}
	return nil
}

// A Finding is what Examine has to say of one thing.
type Finding struct {
	Level  Level
	What   string // with Err, if there is one, the whole finding
	Err    error  // what is wrong
	Remedy string // what to do about it
}

// A Level says how bad a finding is.
type Level int

// The levels.
const (
	LevelGood Level = iota
	LevelWarn
	LevelBad
)

// Good is a finding of what is well.
func Good(what string) Finding { return Finding{Level: LevelGood, What: what} }

// Warn is a finding of what works and should be otherwise.
func Warn(what, remedy string, err error) Finding { return Finding{LevelWarn, what, err, remedy} }

// Bad is a finding of what does not work.
func Bad(what, remedy string, err error) Finding { return Finding{LevelBad, what, err, remedy} }

// A Registry is an explicit list of drivers.
type Registry []Driver

// Lookup finds a driver by name.
func (r Registry) Lookup(name string) (Driver, error) {
	i := slices.IndexFunc(r, func(d Driver) bool { return d.Name == name })
	if i < 0 {
		return Driver{}, fmt.Errorf("unknown transport %q, known are %v", name, r.Names())
	}
	return r[i], nil
}

// Open makes the named transport for this side of the bus from what its Driver.Config returned, filled by the operator, and checks what goes through it.
func (r Registry) Open(role Role, name string, config any, env Env) (*CheckedTransport, error) {
	d, err := r.Lookup(name)
	if err != nil {
		return nil, err
	}
	t, err := d.Open(role, config, env)
	if err != nil {
		return nil, err
	}
	return Checked(t, d.Capabilities(role), cmp.Or(env.Log, slog.New(slog.DiscardHandler)).With("transport", name)), nil
}

// Names lists the drivers' names in order.
func (r Registry) Names() []string {
	names := make([]string, len(r))
	for i, d := range r {
		names[i] = d.Name
	}
	return names
}
