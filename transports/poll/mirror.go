package poll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A mirror looks at all places of all its modules, each at its own pace.
type mirror struct {
	conf    MirrorConfig
	log     *slog.Logger
	web     *browser
	modules []string // that Examine looks for

	looks, unchanged, news, failed, foreign atomic.Uint64

	mu      sync.Mutex
	watches map[string]*watch // by module and place; they outlive a Run, so that coming back is no reason to look earlier, or to fetch again
	order   []string          // of the present Run's
}

func newMirror(c MirrorConfig, env transports.Env) (*mirror, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &mirror{conf: c, log: env.Log, watches: map[string]*watch{}, modules: env.Modules}
	var err error
	m.web, err = newBrowser(&m.conf)
	return m, err
}

// A place is somewhere to look.
type place interface {
	// look returns what is there. The error says why that cannot be told.
	look(ctx context.Context) (sight, error)

	// id tells it from all others. String names it for people, without what may be secret.
	id() string
	String() string
}

// A sight is what was found in a place.
type sight struct {
	unchanged bool          // as at the last look: nothing else is told
	bodies    [][]byte      // the oldest first
	foreign   int           // what was there and is not ours
	fresh     time.Duration // for how long it would be found unchanged
	taken     func()        // called when all bodies are safe; may be nil
}

// later is an error of a server that asks not to be asked for a while.
type later struct {
	error
	wait time.Duration
}

func (l later) Unwrap() error { return l.error }

// Publish implements transports.Transport: there is no way back.
func (m *mirror) Publish(context.Context, transports.Message) error {
	return transports.Permanent(fmt.Errorf("publish by looking at others: %w", errors.ErrUnsupported))
}

// mostLooks is how many looks are under way at the same time.
const mostLooks = 4

// Run implements transports.Transport. It ends when no place at all tells anything, for that is what being connected means here.
func (m *mirror) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	all, err := m.choose(subs)
	if err != nil {
		return transports.Permanent(err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	in := &intake{r: r, fail: fail, one: make(chan struct{}, 1), blind: map[*watch]error{}, places: len(all)}
	slots := make(chan struct{}, mostLooks)
	var parts sync.WaitGroup
	defer m.web.rest()
	defer parts.Wait()
	defer fail(nil) // before it is waited for what ends by it
	for _, w := range all {
		parts.Go(func() { m.follow(ctx, w, in, slots) })
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// choose finds the places to look at.
func (m *mirror) choose(subs []transports.Subscription) ([]*watch, error) {
	var all []*watch
	seen := map[string]transports.Topic{}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.order = nil
	for _, s := range subs {
		if s.Topic.Kind != transports.Announce {
			continue
		}
		places, err := m.placesOf(s.Topic.Module)
		if err != nil {
			return nil, err
		}
		for _, p := range places {
			if other, twice := seen[p.id()]; twice {
				return nil, fmt.Errorf(`%s is looked at for module %s and for %s: write {module} where the name of the module belongs`, p, other.Module, s.Topic.Module)
			}
			seen[p.id()] = s.Topic
			key := s.Topic.Module + " " + p.id()
			if m.watches[key] == nil {
				m.watches[key] = &watch{topic: s.Topic, place: p, name: s.Topic.Module + ", " + p.String(), tempo: newTempo(m.conf.EveryMin.Duration, m.conf.EveryMax.Duration)}
			}
			m.order = append(m.order, key)
			all = append(all, m.watches[key])
		}
	}
	if len(all) == 0 {
		return nil, errors.New("there is no module to look for")
	}
	return all, nil
}

func (m *mirror) placesOf(module string) ([]place, error) {
	p := m.conf.of(module)
	if p.none() {
		return nil, fmt.Errorf("module %s has no place to look at: write feed, head or dns, for all modules or in its [[transport.poll.module]]", module)
	}
	var all []place
	for _, at := range []struct {
		url  string
		read func([]byte) ([][]byte, int, error)
		what string
		most int64
	}{{p.Feed, readFeed, "feed", maxDocument}, {p.Head, headReader, "head", maxHead}} {
		if at.url != "" {
			all = append(all, &page{b: m.web, url: at.url, what: at.what, read: at.read, most: at.most})
		}
	}
	if p.DNS != "" {
		name, err := nameOf(module, p.DNS)
		if err != nil {
			return nil, err
		}
		all = append(all, &record{name: name, server: m.conf.DNSServer, timeout: m.conf.Timeout.Duration})
	}
	return all, nil
}

func headReader(text []byte) ([][]byte, int, error) {
	bodies, err := readHead(text)
	return bodies, 0, err
}

// follow looks at one place again and again until ctx is done.
func (m *mirror) follow(ctx context.Context, w *watch, in *intake, slots chan struct{}) {
	for m.await(ctx, w) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		bound, cancel := context.WithTimeoutCause(ctx, m.conf.Timeout.Duration, fmt.Errorf("no answer within %v (timeout)", m.conf.Timeout))
		s, err := w.place.look(bound)
		if err != nil && bound.Err() != nil {
			err = context.Cause(bound)
		}
		cancel()
		<-slots
		if ctx.Err() != nil {
			return
		}
		m.looks.Add(1)
		news := 0
		if err == nil {
			if news, err = in.take(ctx, w, s); err != nil {
				in.fail(err)
				return
			}
		}
		m.note(w, s, news, err)
		in.told(w, err)
	}
}

// await waits until a place is to be looked at.
func (m *mirror) await(ctx context.Context, w *watch) bool {
	m.mu.Lock()
	due := w.due
	m.mu.Unlock()
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// note notes what a look has told, and when the next one is due.
func (m *mirror) note(w *watch, s sight, news int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	w.looked = now
	if err != nil {
		m.failed.Add(1)
		if w.err == nil {
			w.blind = now
			if len(m.order) > 1 { // else it is said that there is no connection
				m.log.Warn("a place to look at tells nothing", "place", w.name, "error", err)
			}
		}
		w.err = err
		var l later
		errors.As(err, &l)
		w.due = now.Add(w.tempo.failed(transports.IsPermanent(err), l.wait, rand.Float64()))
		return
	}
	if w.err != nil && len(m.order) > 1 {
		m.log.Info("a place to look at tells something again", "place", w.name)
	}
	w.err, w.blind = nil, time.Time{}
	m.foreign.Add(uint64(s.foreign))
	m.news.Add(uint64(news))
	if s.unchanged {
		m.unchanged.Add(1)
	}
	if news > 0 {
		w.changed = now
	}
	w.due = now.Add(w.tempo.looked(news > 0, s.fresh, rand.Float64()))
}

// Notes implements transports.Noter: what each place has told, and when.
func (m *mirror) Notes() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range m.order {
		all = append(all, m.watches[key].String())
	}
	return all
}

// Counters implements transports.Counter.
func (m *mirror) Counters() map[string]uint64 {
	return map[string]uint64{
		"looks": m.looks.Load(), "unchanged": m.unchanged.Load(), "cannot_tell": m.failed.Load(),
		"news":    m.news.Load(),    // what was handed on and said something new
		"foreign": m.foreign.Load(), // entries and records that are not ours
	}
}
