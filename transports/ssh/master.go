package ssh

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A Master calls the mirrors and hands them what it publishes.
type Master struct {
	conf MasterConfig
	env  transports.Env
	log  *slog.Logger

	dialling *semaphore.Weighted
	feed     wire.Feed
	pushers  []*pusher

	mu      sync.Mutex
	running bool
	states  map[string]transports.State // by mirror
	counts  map[string]uint64
}

// NewMaster checks the configuration.
func NewMaster(c MasterConfig, env transports.Env) (*Master, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Master{conf: c, env: env, log: cmp.Or(env.Log, slog.New(slog.DiscardHandler)), dialling: semaphore.NewWeighted(int64(c.Parallel)),
		states: map[string]transports.State{}, counts: map[string]uint64{}}
	return m, m.makePushers()
}

// Run implements transports.Transport. It calls each mirror again and again until ctx is done or r refuses a message: one that cannot be reached delays
// none of the others.
func (m *Master) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	in := wire.NewIntake(ctx, subs, r, fail)
	m.setRunning(true)
	defer m.setRunning(false)
	r.Connected()
	var calls sync.WaitGroup
	for _, p := range m.pushers {
		calls.Go(func() {
			fail(transports.Keep(ctx, p, nil, connected{}, transports.KeepOptions{Log: m.log.With("mirror", p.at.Name, "archive", p.name), Max: m.conf.RetryMax.Duration}))
		})
	}
	for _, at := range m.conf.Mirrors {
		if at.Speaks == speaksFtpsync {
			continue
		}
		c := &caller{m: m, at: m.filled(at), in: in}
		calls.Go(func() {
			fail(transports.Keep(ctx, c, nil, connected{}, transports.KeepOptions{
				Log: m.log.With("mirror", at.Name), Max: m.conf.RetryMax.Duration, Steady: min(time.Minute, m.conf.RetryMax.Duration),
				State: func(s transports.State) { m.setState(at.Name, s) },
			}))
		})
	}
	calls.Wait()
	return context.Cause(ctx)
}

// connected is the receiver of a caller, which hands what it hears to the intake that all share.
type connected struct{}

// Connected implements transports.Receiver.
func (connected) Connected() {}

// Receive implements transports.Receiver.
func (connected) Receive(context.Context, transports.Message) error { return nil }

// filled has what is said for all mirrors where nothing is said for this one.
func (m *Master) filled(at MirrorAddress) MirrorAddress {
	at.User = cmp.Or(at.User, m.conf.User)
	if len(at.Keys) == 0 {
		at.Keys = m.conf.Keys
	}
	return at
}

// Publish implements transports.Transport: it queues one for each mirror that is connected, and returns at once. The others get it from Env.Backlog when
// they are reached.
func (m *Master) Publish(ctx context.Context, one transports.Message) error {
	if err := capabilities(transports.Master).Check(one); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	running := m.running
	m.mu.Unlock()
	if !running {
		return transports.ErrNotConnected
	}
	m.feed.Put(one)
	for _, p := range m.pushers {
		p.hear(one)
	}
	return nil
}

func (m *Master) setRunning(is bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = is
	clear(m.states)
}

func (m *Master) setState(mirror string, s transports.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Connected && !m.states[mirror].Connected {
		m.counts["sessions"]++
	}
	m.states[mirror] = s
}

func (m *Master) count(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
}

// PeerCount implements transports.PeerCounter.
func (m *Master) PeerCount() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.states {
		if s.Connected {
			n++
		}
	}
	return n
}

// Notes implements transports.Noter: which mirrors are not reached, and why.
func (m *Master) Notes() []string {
	all := m.unreached()
	if note := m.pushNote(); note != "" {
		all = append(all, note)
	}
	return all
}

// Degraded implements transports.Degrader: which mirrors are not reached, or have failed at what they were told.
func (m *Master) Degraded() []string {
	all := m.unreached()
	for _, p := range m.pushers {
		if text, failed := p.standing(); failed {
			all = append(all, text)
		}
	}
	return all
}

func (m *Master) unreached() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.conf.Mirrors {
		if s, known := m.states[at.Name]; known && !s.Connected && s.Err != nil {
			all = append(all, fmt.Sprintf("%s is not reached since %s: %v", at.Name, s.Since.Format(time.RFC3339), s.Err))
		}
	}
	return all
}

// Counters implements transports.Counter.
func (m *Master) Counters() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]uint64{"sessions": 0, "taken": 0, "refused": 0}
	if len(m.pushers) > 0 {
		all["pushes"], all["pushes failed"] = 0, 0
	}
	for k, v := range m.counts {
		all[k] = v
	}
	return all
}
