// Package daemon makes a running agent of a mirror's configuration: keys and trust, a runner and a catch-up per module, transports with their
// outbox relays, and what the control socket answers.
package daemon

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/bookmark"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

// A Daemon is an agent with all that it needs.
type Daemon struct {
	conf    listener.Config
	signer  ssh.Signer
	trust   *signers.Store
	log     *slog.Logger
	agent   *listener.Agent
	outlets *outlet.Set
	runners map[event.Module]*rsync.Runner // of the modules that have an upstream
	now     func() time.Time
	awaited atomic.Int64 // pushes that somebody waits for

	mu        sync.Mutex
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
	names := reporting(conf.Transport)
	d.agent, err = listener.Open(ctx, listener.Options{
		Mirror: conf.Name, Signer: d.signer, Gate: d.gate(), State: string(conf.State), Modules: modules,
		LookEvery: conf.LookEvery.Duration, LookLeast: conf.LookLeast.Duration, HaveEvery: conf.HaveEvery.Duration, Skew: conf.ClockSkew.Duration, Spread: spread, Patience: patience,
		Schema: []sqlite.Component{outbox.Schema(), bookmark.Schema()},
		Enqueue: func(ctx context.Context, tx *sql.Tx, m transports.Message) error {
			return outbox.Put(ctx, tx, outbox.Entry{Message: m}, names)
		},
		Reported: func() { d.outlets.Wake() },
		Publish: func(ctx context.Context, via string, m transports.Message) error {
			return d.outlets.Publish(ctx, via, m)
		}, Log: log,
	})
	if err != nil {
		return d, err
	}
	d.outlets = outlet.NewSet(d.agent.DB(), log)
	return d, nil
}

// bare is a daemon with its keys and nothing else.
func bare(conf *listener.Config) (*Daemon, error) {
	d := &Daemon{conf: *conf, log: slog.New(slog.DiscardHandler), runners: map[event.Module]*rsync.Runner{},
		now: time.Now, verifying: map[event.Module]bool{}}
	var err error
	if d.signer, d.trust, err = conf.Open(); err != nil {
		return nil, err
	}
	return d, nil
}

// reporting are the transports that reports go by.
func reporting(all config.Sections) []string {
	return slices.DeleteFunc(all.Names(), func(name string) bool {
		_, silent := all[name].(transports.SendsNothing)
		return silent
	})
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
func (d *Daemon) AddOutlets(outlets ...outlet.Outlet) { d.outlets.Add(outlets...) }

// Run works until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	if err := d.outlets.Forget(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	d.outlets.Run(ctx, g, d.subscriptions(ctx), d.agent.Receiver)
	g.Go(func() error { return d.agent.Run(ctx) })
	return g.Wait()
}

// Close closes what Open opened, once Run has returned.
func (d *Daemon) Close() error { return d.agent.Close() }

// subscriptions are to the announcements of every module, from where this mirror stands.
func (d *Daemon) subscriptions(ctx context.Context) (subs []transports.Subscription) {
	for _, m := range d.conf.Modules {
		name := event.Module(m.Name)
		subs = append(subs, transports.Subscription{
			Topic: transports.Topic{Kind: transports.Announce, Module: m.Name},
			Have:  func() string { return d.position(ctx, name) },
		})
	}
	return subs
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

// Agent is the agent, for the commands.
func (d *Daemon) Agent() *listener.Agent { return d.agent }

// Handler answers on the control socket.
func (d *Daemon) Handler() http.Handler { return d.handler() }

func stateFile(conf listener.Config, parts ...string) string {
	return filepath.Join(append([]string{string(conf.State)}, parts...)...)
}
