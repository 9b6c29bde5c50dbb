package trigger

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/bookmark"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// A Hub is the master's daemon: it exports and relays what is journalled, signs heads, and collects reports.
type Hub struct {
	conf      Config
	journal   *journal.Journal
	collector *collector.Collector
	trust     *signers.Store
	log       *slog.Logger
	now       func() time.Time

	publisher Publisher
	exports   map[event.Module]*exported
	outlets   *outlet.Set
	wake      chan struct{} // holds one token: something was journalled
	composes  chan struct{} // holds one token: a compose has begun or ended
}

// NewHub makes a hub of what OpenParts opened. Its outlets are added with AddOutlets before Run, since they need the hub's Env.
func NewHub(conf *Config, p *Parts, log *slog.Logger) *Hub {
	h := &Hub{conf: *conf, journal: p.Journal, collector: p.Collector, trust: p.Trust, exports: p.exports, log: log, now: time.Now,
		outlets: outlet.NewSet(p.Journal.DB(), log), wake: make(chan struct{}, 1), composes: make(chan struct{}, 1)}
	h.publisher = Publisher{Journal: p.Journal, Modules: conf.Modules, Now: h.now, exports: p.exports}
	return h
}

// AddOutlets tells the hub its transports.
func (h *Hub) AddOutlets(outlets ...outlet.Outlet) { h.outlets.Add(outlets...) }

// Env is what the hub lends to its transports.
func (h *Hub) Env(signer ssh.Signer) transports.Env {
	return transports.Env{
		Self: h.conf.Name, Log: h.log, Signer: signer, PeerName: h.peerName, Allowed: h.allowed, Backlog: h.backlog, Bookmarks: bookmark.Store{DB: h.journal.DB()},
		Talk: transports.Talk{Ask: h.Ask, Tell: h.Tell},
	}
}

// Run serves until ctx ends or something breaks that trying again does not mend.
func (h *Hub) Run(ctx context.Context) error {
	if err := h.outlets.Forget(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	h.outlets.Run(ctx, g, h.subscriptions(), func(name string) transports.Receiver {
		return &reports{gate: event.Gate{Trust: h.trust}, allowed: h.allowed, collector: h.collector, now: h.now, log: h.log.With("transport", name),
			quiet: rate.NewLimiter(rate.Every(10*time.Second), 6)}
	})
	for _, x := range h.exports {
		g.Go(func() error { return h.announceLoop(ctx, x) })
		if x.conf.ScanEvery.Duration > 0 {
			g.Go(func() error { return h.scanLoop(ctx, x) })
		}
	}
	g.Go(func() error { return h.exportLoop(ctx) })
	g.Go(func() error { return h.composeLoop(ctx) })
	h.keepLists(ctx, g)
	return g.Wait()
}

// subscriptions are to the reports on every module.
func (h *Hub) subscriptions() (subs []transports.Subscription) {
	for _, m := range h.conf.Modules {
		subs = append(subs, transports.Subscription{Topic: transports.Topic{Kind: transports.Report, Module: m.Name}})
	}
	return subs
}

// Publish journals a change. It is exported and sent at once, but not waited for: from the journal both will be done whatever happens.
func (h *Hub) Publish(ctx context.Context, r Request) (Published, error) {
	p, err := h.publisher.Publish(ctx, r)
	if err != nil || p.Serial == 0 && p.Held.IsZero() {
		return p, err
	}
	p.Relaying = true
	if !p.Held.IsZero() {
		h.log.Info("gathered for the compose under way", "module", p.Module, "records", p.Records, "source", r.Source)
		return p, nil
	}
	h.log.Info("announced", "module", p.Module, "serial", p.Serial, "kind", p.Kind, "records", p.Records, "source", r.Source)
	x := h.exports[r.Module]
	if p.Kind == event.Change && p.Records == 0 {
		x.due.Store(true)
	}
	token(x.news)
	return p, nil
}

// announceLoop exports what is journalled in a module, then wakes the relays: who hears of an announcement finds it exported. What is journalled
// meanwhile is exported together.
func (h *Hub) announceLoop(ctx context.Context, x *exported) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-x.news:
		}
		if err := x.exporter.Advance(ctx); err != nil { // the export loop tries again
			h.note(x, err)
		}
		failpoint.Here("publish.exported")
		h.outlets.Wake()
		h.showHead(ctx, event.Module(x.conf.Name))
		token(h.wake)
	}
}

// token puts a token into a channel that holds one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// peerName says whose key it is: that of a mirror, for it may sign reports.
func (h *Hub) peerName(key ssh.PublicKey) (string, error) {
	names, err := h.trust.Principals(key, event.Reply.Namespace(), h.now())
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(names[0], ",")
	return event.ParsePrincipal(name)
}

// allowed lets a mirror subscribe to the announcements of the modules it may have, and publish reports on them.
func (h *Hub) allowed(peer string, t transports.Topic, subscribe bool) error {
	m, err := h.publisher.module(event.Module(t.Module))
	if err != nil {
		return err
	}
	if subscribe != (t.Kind == transports.Announce) {
		return fmt.Errorf("a mirror subscribes to announcements and publishes reports, not the other way round")
	}
	if len(m.Mirrors) == 0 {
		return nil
	}
	for _, pattern := range m.Mirrors {
		if ok, err := path.Match(pattern, peer); ok && err == nil {
			return nil
		}
	}
	return fmt.Errorf("mirror %s is not one that may have module %s", peer, m.Name)
}

// maxBacklog is how many announcements a subscriber is given anew. One that missed more reads the journal through rsync, as the head tells it to.
const maxBacklog = 256

// parsePosition reads where a subscriber stands, as its Subscription.Have gives it: EPOCH:SERIAL.
func parsePosition(have string) (event.Epoch, event.Serial, error) {
	e, s, ok := strings.Cut(have, ":")
	epoch, err := event.ParseEpoch(e)
	serial, err2 := event.ParseSerial(s)
	if err = errors.Join(err, err2); err != nil || !ok {
		return "", 0, fmt.Errorf("position %.40q: must be EPOCH:SERIAL", have)
	}
	return epoch, serial, nil
}

// backlog yields what a subscriber has missed, then the head; or the head first, if it says that what was missed is to wait. What is no longer in the
// journal, or too large to be sent, the mirror reads through rsync as the head tells it to: an error here would end the subscription, at each attempt anew.
func (h *Hub) backlog(ctx context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error] {
	return func(yield func(transports.Message, error) bool) {
		if t.Kind != transports.Announce {
			return
		}
		st, err := h.journal.State(ctx, event.Module(t.Module))
		if err != nil {
			yield(transports.Message{}, err)
			return
		}
		held := h.now().Before(st.Hold)
		if held && !h.yieldHead(ctx, t, yield) || !h.yieldMissed(ctx, t, st, have, yield) {
			return
		}
		if !held {
			h.yieldHead(ctx, t, yield)
		}
	}
}

// yieldHead yields the head, and tells whether more is wanted.
func (h *Hub) yieldHead(ctx context.Context, t transports.Topic, yield func(transports.Message, error) bool) bool {
	line, head, err := h.journal.Head(ctx, event.Module(t.Module), h.conf.HeadTTL.Duration, h.now())
	if err != nil {
		yield(transports.Message{}, err)
		return false
	}
	return yield(message(t, headID(head), line), nil)
}

// yieldMissed yields what came after a position up to what is the latest, and tells whether more is wanted.
func (h *Hub) yieldMissed(ctx context.Context, t transports.Topic, latest journal.State, have string, yield func(transports.Message, error) bool) bool {
	epoch, serial, err := parsePosition(have)
	if err != nil || epoch != latest.Epoch || serial >= latest.Serial || latest.Serial-serial > maxBacklog {
		return true
	}
	for a, err := range h.journal.Since(ctx, latest.Module, epoch, serial) {
		if errors.Is(err, journal.ErrTrimmed) || errors.Is(err, journal.ErrOtherEpoch) {
			break
		}
		if err != nil {
			yield(transports.Message{}, err)
			return false
		}
		failpoint.Here("backlog.send")
		if !yield(message(t, announcementID(epoch, a.Announcement.Serial), h.fitting(a)), nil) {
			return false
		}
	}
	return true
}

// fitting is the announcement with its path set, or alone where a transport that resumes could not carry both.
func (h *Hub) fitting(a journal.Stored) []byte {
	body := a.Body()
	for _, o := range h.outlets.All() {
		if o.Caps.Resumes && len(body) > o.Caps.MaxBody {
			return a.Line
		}
	}
	return body
}

func message(t transports.Topic, id string, body []byte) transports.Message {
	return transports.Message{Topic: t, ID: id, Body: body}
}

// announcementID names the message of an announcement, the same by every transport and in the backlog.
func announcementID(e event.Epoch, s event.Serial) string {
	return string(e) + "." + strconv.FormatUint(uint64(s), 10)
}

func headID(h event.Head) string {
	return announcementID(h.Epoch, h.Serial) + ".head." + strconv.FormatInt(h.At.Unix(), 10)
}
