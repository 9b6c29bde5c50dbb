package poll

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// A master shows what it is given, in all places that are configured. Publish needs no Run: what it is given is kept, and shown from then on.
type master struct {
	conf   MasterConfig
	env    transports.Env
	log    *slog.Logger
	public func(transports.Topic) bool // everybody may see it
	names  *updater                    // nil: nothing goes into the DNS

	published, embargoed, served atomic.Uint64

	writing   chan struct{}       // holds a token while the histories are changed
	histories map[string]*history // by module

	mu    sync.Mutex
	shown map[string]document // by "module/file"
}

// A document is a file as others find it.
type document struct {
	body      []byte
	kind, tag string // Content-Type and ETag
	at        time.Time
}

func newDocument(body []byte, kind string, at time.Time) document {
	sum := sha256.Sum256(body)
	return document{body: body, kind: kind, tag: fmt.Sprintf(`"%x"`, sum[:16]), at: at}
}

func newMaster(c MasterConfig, env transports.Env) (*master, error) {
	if err := errors.Join(c.Validate(), c.DNS.Validate()); err != nil {
		return nil, err
	}
	m := &master{
		conf: c, env: env, log: env.Log, public: func(transports.Topic) bool { return true }, writing: make(chan struct{}, 1),
		histories: map[string]*history{}, shown: map[string]document{},
	}
	if env.Allowed != nil && !c.Embargoed {
		m.public = func(t transports.Topic) bool { return env.Allowed("", t, true) == nil }
	}
	if c.DNS.Zone != "" {
		m.names = newUpdater(c.DNS, m.log)
	}
	return m, nil
}

// Run implements transports.Transport. It serves until ctx is done. Nothing is ever received.
func (m *master) Run(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
	for _, s := range subs { // each module has a feed from the start, empty or not
		if err := m.show(ctx, s.Topic.Module, nil); err != nil {
			return err
		}
	}
	var l net.Listener
	if m.conf.Listen != "" {
		var err error
		if l, err = m.listen(ctx); err != nil {
			return err
		}
	}
	ctx, fail := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer fail(nil) // before it is waited for what ends by it
	if l != nil {
		parts.Go(func() { fail(m.serve(ctx, l)) })
	}
	if m.names != nil {
		parts.Go(func() { m.names.run(ctx) })
	}
	r.Connected()
	<-ctx.Done()
	return context.Cause(ctx)
}

// Publish implements transports.Transport.
func (m *master) Publish(ctx context.Context, msg transports.Message) error {
	return m.PublishAll(ctx, []transports.Message{msg})[0]
}

// PublishAll implements transports.BatchPublisher: what is announced of one module is written once.
func (m *master) PublishAll(ctx context.Context, ms []transports.Message) []error {
	errs := make([]error, len(ms))
	places := map[string][]int{}
	for i, msg := range ms {
		switch err := capabilities(transports.Master).Check(msg); {
		case err != nil:
			errs[i] = err
		case words.HasSet(msg.Body): // mirrors fetch it from their upstream
			errs[i] = fmt.Errorf("%w: a path set", transports.ErrTooLarge)
		case !m.public(msg.Topic): // its mirrors hear of it in another way; to keep it would be to keep it for ever
			m.embargoed.Add(1)
		default:
			places[msg.Topic.Module] = append(places[msg.Topic.Module], i)
		}
	}
	for module, at := range places {
		var these []transports.Message
		for _, i := range at {
			these = append(these, ms[i])
		}
		err := m.show(ctx, module, these)
		for _, i := range at {
			errs[i] = err
		}
	}
	return errs
}

// show takes in messages on a module, and shows it as it is then.
func (m *master) show(ctx context.Context, module string, ms []transports.Message) error {
	if !m.public(transports.Topic{Kind: transports.Announce, Module: module}) {
		return nil
	}
	select {
	case m.writing <- struct{}{}:
		defer func() { <-m.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	now := time.Now()
	h, err := m.history(ctx, module, ms, now)
	if err != nil {
		return err
	}
	text, err := h.feed(module, m.env.Self, m.conf.URL, now)
	if err != nil {
		return err
	}
	files := map[string]document{feedFile: newDocument(text, feedType, now)}
	if h.head.Body != nil {
		files[headFile] = newDocument(append(slices.Clone(h.head.Body), '\n'), headType, now)
	}
	if m.conf.Write != "" && len(ms) > 0 { // what was written before is no worse than a feed that has no head yet
		if err := writeFiles(string(m.conf.Write), module, files); err != nil {
			return err
		}
	}
	m.mu.Lock()
	for name, d := range files {
		m.shown[module+"/"+name] = d
	}
	m.mu.Unlock()
	m.histories[module] = h
	m.published.Add(uint64(len(ms)))
	if m.names != nil && h.head.Body != nil {
		m.names.set(module, string(h.head.Body))
	}
	return nil
}

// history is that of a module with messages taken in, kept. What is known of it so far stays as it is, for the case that something fails.
func (m *master) history(ctx context.Context, module string, ms []transports.Message, now time.Time) (*history, error) {
	h := &history{}
	if known := m.histories[module]; known != nil {
		*h = *known
	} else if loaded, err := load(ctx, m.env.Bookmarks, module); err != nil {
		return nil, err
	} else {
		h = loaded
	}
	isNew := false
	for _, msg := range ms {
		isNew = h.add(msg, now, m.conf.Entries) || isNew
	}
	if isNew {
		if err := h.save(ctx, m.env.Bookmarks, module); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Notes implements transports.Noter: which names in the DNS are not as they should be.
func (m *master) Notes() []string {
	if m.names == nil {
		return nil
	}
	return m.names.notes()
}

// Counters implements transports.Counter.
func (m *master) Counters() map[string]uint64 {
	all := map[string]uint64{
		"published": m.published.Load(), "served": m.served.Load(),
		"embargoed": m.embargoed.Load(), // messages that not everybody may see, and which are not shown
	}
	if m.names != nil {
		all["dns_updates"], all["dns_failed"] = m.names.done.Load(), m.names.failed.Load()
	}
	return all
}
