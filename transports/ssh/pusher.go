package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/line"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A mirror that runs Debian's ftpsync understands no announcement: it is told that an archive has changed, as runmirrors tells it, and looks for itself.
// One such push runs at a time for each archive, for as long as ftpsync works; what is announced meanwhile is one more push after it. It is pushed again
// until ftpsync says that it is done: one that was busy, or met a full upstream, has not got what was announced. Nothing is reported from there.

// An archive is one that a mirror is pushed for.
type archive struct{ module, name string }

// parseArchive reads MODULE, whose archive has the same name, or MODULE=ARCHIVE, where no name is that of ftpsync.conf itself.
func parseArchive(text string) (archive, error) {
	module, name, named := strings.Cut(text, "=")
	if !named {
		name = module
	}
	if err := (transports.Topic{Kind: transports.Announce, Module: module}).Check(); err != nil {
		return archive{}, err
	}
	if len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return archive{}, fmt.Errorf("archive %.80q: at most 64 letters, digits and . _ -", name)
	}
	return archive{module, name}, nil
}

func (a archive) topic() transports.Topic {
	return transports.Topic{Kind: transports.Announce, Module: a.module}
}

// command is what runmirrors would ask for.
func (p *pusher) command(stage string) string {
	words := "sync:archive:" + p.name
	if p.at.Push == pushMhop {
		words += " sync:mhop"
	}
	return words + " sync:" + stage
}

// A pusher is the transport to one archive of one such mirror. It is run again and again by Keep.
type pusher struct {
	caller
	archive
	wake     chan struct{} // holds one token
	together *together     // of its module

	mu     sync.Mutex
	want   string // the position of the newest announcement
	number uint64 // of want
	told   string // the position of the newest one when the last push began that was done
	doing  string // see does
	err    error  // why the last push was not done, nil if it was
}

// makePushers makes those for the mirrors that speak so.
func (m *Master) makePushers() error {
	all := map[string]*together{} // by module
	for _, at := range m.conf.Mirrors {
		if at.Speaks != speaksFtpsync {
			continue
		}
		for _, text := range at.Archives {
			a, err := parseArchive(text)
			if err != nil {
				return err
			}
			if all[a.module] == nil {
				all[a.module] = newTogether()
			}
			p := &pusher{caller: caller{m: m, at: m.filled(at)}, archive: a, wake: make(chan struct{}, 1), together: all[a.module]}
			if p.inStages() {
				p.together.join(p)
			}
			m.pushers = append(m.pushers, p)
		}
	}
	return nil
}

// inStages tells whether this mirror waits for others before it shows a change, and they for it.
func (p *pusher) inStages() bool { return p.at.Push == pushStaged || p.at.Push == pushMhop }

// position is what the id of a message says about where its module stands: a head's begins with that of the announcement it speaks of.
func position(id string) string {
	before, _, _ := strings.Cut(id, ".head.")
	return before
}

// hear notes that something was published.
func (p *pusher) hear(m transports.Message) {
	if m.Topic != p.topic() {
		return
	}
	at := position(m.ID)
	number := p.together.numbered(at)
	p.mu.Lock()
	if number >= p.number { // a head that was overtaken says nothing new
		p.want, p.number = at, number
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run implements transports.Transport. It pushes whenever something was announced, until that fails.
func (p *pusher) Run(ctx context.Context, _ []transports.Subscription, r transports.Receiver) error {
	if err := p.allowed(p.topic(), true); err != nil {
		return p.failed(transports.Permanent(err))
	}
	if err := p.remember(ctx); err != nil {
		return p.failed(err)
	}
	for ctx.Err() == nil {
		p.mu.Lock()
		want, number, told := p.want, p.number, p.told
		p.mu.Unlock()
		if want != told {
			if err := p.bring(ctx, number); err != nil {
				return p.failed(err)
			}
			if err := p.done(ctx, want); err != nil {
				return p.failed(err)
			}
			continue
		}
		if p.inStages() {
			p.together.arrived(p, number)
		}
		r.Connected()
		select {
		case <-p.wake:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// remember finds out, once, what was announced while no hub ran and what of it the mirror has been told.
func (p *pusher) remember(ctx context.Context) error {
	p.mu.Lock()
	want, told := p.want, p.told
	p.mu.Unlock()
	if told == "" && p.m.env.Bookmarks != nil {
		var err error
		if told, err = p.m.env.Bookmarks.Bookmark(ctx, p.bookmark()); err != nil {
			return err
		}
	}
	if want == "" && p.m.env.Backlog != nil {
		for m, err := range p.m.env.Backlog(ctx, p.topic(), "") {
			if err != nil {
				return err
			}
			want = position(m.ID)
		}
	}
	number := uint64(0)
	if want != "" {
		number = p.together.numbered(want)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.want == "" {
		p.want, p.number = want, number
	}
	p.told = cmp.Or(p.told, told)
	return nil
}

func (p *pusher) bookmark() string { return fmt.Sprintf("%s/%s/%s", Name, p.at.Name, p.module) }

func (p *pusher) done(ctx context.Context, at string) error {
	p.mu.Lock()
	p.told, p.err = at, nil
	p.mu.Unlock()
	p.m.count("pushes")
	p.m.log.Info("told a mirror that reports nothing", "mirror", p.at.Name, "archive", p.name, "position", at)
	if p.m.env.Bookmarks == nil {
		return nil
	}
	return p.m.env.Bookmarks.SetBookmark(ctx, p.bookmark(), at)
}

func (p *pusher) failed(err error) error {
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	if p.inStages() {
		p.together.failed(p)
	}
	p.m.count("pushes failed")
	return err
}

// bring pushes the mirror until it has what was announced up to a number.
func (p *pusher) bring(ctx context.Context, number uint64) error {
	if p.inStages() {
		return p.staged(ctx, number)
	}
	return p.push(ctx, everything)
}

// push tells the mirror, and waits until its program has ended.
func (p *pusher) push(ctx context.Context, stage string) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	l, err := p.connect(ctx)
	if err != nil {
		return line.Prefer(ctx, err)
	}
	defer l.Close()
	closed := l.EndWith(ctx)
	var parts sync.WaitGroup
	parts.Go(func() {
		wire.KeepAlive(ctx, l.Client, p.m.conf.Keepalive.Duration, func() error { return nil }, func(err error) { fail(fmt.Errorf("%s: %w", p.at.Address, err)) })
	})
	err = p.run(l, stage)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	fail(err)
	<-closed
	parts.Wait()
	return err
}

// connect dials with those who are on their way to a connection, and takes the deadline of dialling off: ftpsync may work for hours.
func (c *caller) connect(ctx context.Context) (*line.Line, error) {
	if err := c.m.dialling.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.m.dialling.Release(1)
	l, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.Settled(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// run runs the forced command, which knows by the words what to do. Only status 0 means that it is done.
func (p *pusher) run(l *line.Line, stage string) error {
	session, err := l.Client.NewSession()
	if err != nil {
		return fmt.Errorf("%s: session: %w", p.at.Address, err)
	}
	var said, complained wire.Capped
	session.Stdout, session.Stderr = &said, &complained
	err = session.Run(p.command(stage))
	var end *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &end):
		return fmt.Errorf("%s: %w while it was told of archive %q: %w", p.at.Address, transports.ErrClosed, p.name, err)
	}
	text := strings.TrimSpace(said.String() + " " + complained.String())
	what := fmt.Sprintf("archive %q", p.name)
	if stage != everything {
		what += ", " + stage
	}
	err = fmt.Errorf("%s: the mirror's command ended with status %d: %s", what, end.ExitStatus(), cmp.Or(text, "it said nothing; see its own log"))
	if slices.Contains([]int{78, 126, 127}, end.ExitStatus()) { // no configuration of that name, or no such program
		err = transports.Permanent(err)
	}
	return err
}
