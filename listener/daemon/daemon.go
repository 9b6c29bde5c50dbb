// Package daemon makes a running agent of a mirror's configuration: keys and trust, a runner and a catch-up per module, transports with their
// outbox relays, and what the control socket answers.
package daemon

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/bookmark"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
)

// An Outlet is a transport as the agent uses it.
type Outlet struct {
	Name      string
	Transport transports.Transport
	Caps      transports.Capabilities
}

// A Daemon is an agent with all that it needs.
type Daemon struct {
	conf    listener.Config
	signer  ssh.Signer
	trust   *signers.Store
	log     *slog.Logger
	agent   *listener.Agent
	outlets []Outlet
	relays  map[string]*outbox.Relay
	runners map[event.Module]*rsync.Runner // of the modules that have an upstream
	now     func() time.Time

	mu        sync.Mutex
	states    map[string]transports.State
	verifying map[event.Module]bool
}

// spread is how long after a connect a mirror may wait before it looks at the upstream's head, so that mirrors that lost the same hub do not all
// ask the same upstream at once.
const spread = 2 * time.Second

// patience is how long a new module waits for the upstream's manifest: a master walks its tree once to build it, at some 100,000 names a second.
const patience = 10 * time.Minute

// Open opens the keys, the inbox and what each module needs. Nothing runs yet and no network is touched; transports are added with AddOutlets.
func Open(ctx context.Context, conf *listener.Config, log *slog.Logger) (*Daemon, error) {
	d, err := bare(conf)
	if err != nil {
		return nil, err
	}
	d.log = log
	modules, err := d.modules(ctx)
	if err != nil {
		return nil, err
	}
	names := conf.Transport.Names()
	d.agent, err = listener.Open(ctx, listener.Options{
		Mirror: conf.Name, Signer: d.signer, Gate: d.gate(), State: string(conf.State), Modules: modules,
		LookEvery: conf.LookEvery.Duration, HaveEvery: conf.HaveEvery.Duration, Skew: conf.ClockSkew.Duration, Spread: spread, Patience: patience,
		Schema: []sqlite.Component{outbox.Schema(), bookmark.Schema()},
		Enqueue: func(ctx context.Context, tx *sql.Tx, m transports.Message) error {
			return outbox.Put(ctx, tx, outbox.Entry{Message: m}, names)
		},
		Reported: d.wakeRelays, Publish: d.publish, Log: log,
	})
	return d, err
}

// bare is a daemon with its keys and nothing else.
func bare(conf *listener.Config) (*Daemon, error) {
	d := &Daemon{conf: *conf, log: slog.New(slog.DiscardHandler), relays: map[string]*outbox.Relay{}, runners: map[event.Module]*rsync.Runner{},
		now: time.Now, states: map[string]transports.State{}, verifying: map[event.Module]bool{}}
	var err error
	if d.signer, d.trust, err = conf.Open(); err != nil {
		return nil, err
	}
	return d, nil
}

// gate lets the granted principals of the trust file speak.
func (d *Daemon) gate() event.Gate {
	g := event.Gate{Trust: d.trust}
	for _, c := range d.conf.Grants {
		g.Grants = append(g.Grants, event.Grant{Principal: c.Principal, Modules: c.Modules, Kinds: c.Kinds})
	}
	return g
}

// Env is what the agent lends to its transports.
func (d *Daemon) Env() transports.Env {
	return transports.Env{Self: d.conf.Name, Log: d.log, Signer: d.signer, Bookmarks: bookmark.Store{DB: d.agent.DB()}}
}

// AddOutlets tells the daemon its transports.
func (d *Daemon) AddOutlets(outlets []Outlet) {
	for _, o := range outlets {
		d.outlets = append(d.outlets, o)
		d.relays[o.Name] = outbox.NewRelay(outbox.Options{DB: d.agent.DB(), Name: o.Name, Transport: o.Transport, Caps: o.Caps,
			Log: d.log.With("transport", o.Name)})
	}
}

// Run works until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	if err := d.forgetOutlets(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, o := range d.outlets {
		g.Go(func() error { return d.keep(ctx, o) })
		g.Go(func() error { return d.relays[o.Name].Run(ctx) })
	}
	g.Go(func() error { return d.agent.Run(ctx) })
	return g.Wait()
}

// forgetOutlets drops the reports that wait for transports that are no longer configured: nobody would ever send them.
func (d *Daemon) forgetOutlets(ctx context.Context) error {
	names := []string{}
	for _, o := range d.outlets {
		names = append(names, o.Name)
	}
	var dropped map[string]int
	err := sqlite.Tx(ctx, d.agent.DB(), func(tx *sql.Tx) (err error) {
		dropped, err = outbox.Forget(ctx, tx, names)
		return err
	})
	for name, n := range dropped {
		d.log.Warn("dropped what waited for a transport that is not configured", "transport", name, "messages", n)
	}
	return err
}

// Close closes what Open opened, once Run has returned.
func (d *Daemon) Close() error { return d.agent.Close() }

func (d *Daemon) keep(ctx context.Context, o Outlet) error {
	var subs []transports.Subscription
	for _, m := range d.conf.Modules {
		name := event.Module(m.Name)
		subs = append(subs, transports.Subscription{
			Topic: transports.Topic{Kind: transports.Announce, Module: m.Name},
			Have:  func() string { return d.position(ctx, name) },
		})
	}
	r := receiver{d.agent.Receiver(o.Name), d.relays[o.Name]}
	return transports.Keep(ctx, o.Transport, subs, r, transports.KeepOptions{Log: d.log.With("transport", o.Name), State: func(s transports.State) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.states[o.Name] = s
	}})
}

// receiver tells the relay of a transport, too, that it is connected.
type receiver struct {
	transports.Receiver
	relay *outbox.Relay
}

func (r receiver) Connected() {
	r.Receiver.Connected()
	r.relay.Connected()
}

// position is where this mirror stands with a module, as a hub understands it: EPOCH:SERIAL, "" if it has nothing yet.
func (d *Daemon) position(ctx context.Context, m event.Module) string {
	st, err := d.agent.Status(ctx)
	if err != nil {
		d.log.Error("where does this mirror stand?", "module", m, "error", err)
		return ""
	}
	for _, s := range st.Modules {
		if s.Module == m && s.Epoch != "" {
			return fmt.Sprintf("%s:%d", s.Epoch, s.Applied)
		}
	}
	return ""
}

func (d *Daemon) wakeRelays() {
	for _, r := range d.relays {
		r.Wake()
	}
}

// publish sends a message that is not worth storing.
func (d *Daemon) publish(ctx context.Context, via string, m transports.Message) error {
	for _, o := range d.outlets {
		if o.Name == via {
			return o.Transport.Publish(ctx, m)
		}
	}
	return fmt.Errorf("transport %s: %w", via, errors.ErrUnsupported)
}

// Agent is the agent, for the commands.
func (d *Daemon) Agent() *listener.Agent { return d.agent }

// Handler answers on the control socket.
func (d *Daemon) Handler() http.Handler { return d.handler() }

func stateFile(conf listener.Config, parts ...string) string {
	return filepath.Join(append([]string{string(conf.State)}, parts...)...)
}
