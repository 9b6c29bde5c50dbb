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
func (a archive) command() string { return "sync:archive:" + a.name + " sync:all" }

// A pusher is the transport to one archive of one such mirror. It is run again and again by Keep.
type pusher struct {
	caller
	archive
	wake chan struct{} // holds one token

	mu   sync.Mutex
	want string // the position of the newest announcement
	told string // that of the newest one when the last push began that was done
	err  error  // why the last push was not done, nil if it was
}

// pushers are those for the mirrors that speak so.
func (m *Master) makePushers() error {
	for _, at := range m.conf.Mirrors {
		if at.Speaks != speaksFtpsync {
			continue
		}
		for _, text := range at.Archives {
			a, err := parseArchive(text)
			if err != nil {
				return err
			}
			m.pushers = append(m.pushers, &pusher{caller: caller{m: m, at: m.filled(at)}, archive: a, wake: make(chan struct{}, 1)})
		}
	}
	return nil
}

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
	p.mu.Lock()
	p.want = position(m.ID)
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
		want, told := p.want, p.told
		p.mu.Unlock()
		if want != told {
			if err := p.push(ctx); err != nil {
				return p.failed(err)
			}
			if err := p.done(ctx, want); err != nil {
				return p.failed(err)
			}
			continue
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
	p.mu.Lock()
	defer p.mu.Unlock()
	p.want, p.told = cmp.Or(p.want, want), cmp.Or(p.told, told)
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
	p.m.count("pushes failed")
	return err
}

// push tells the mirror, and waits until its program has ended.
func (p *pusher) push(ctx context.Context) error {
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
	err = p.run(l)
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
func (p *pusher) run(l *line.Line) error {
	session, err := l.Client.NewSession()
	if err != nil {
		return fmt.Errorf("%s: session: %w", p.at.Address, err)
	}
	var said, complained wire.Capped
	session.Stdout, session.Stderr = &said, &complained
	err = session.Run(p.command())
	var end *ssh.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &end):
		return fmt.Errorf("%s: %w while it was told of archive %q: %w", p.at.Address, transports.ErrClosed, p.name, err)
	}
	text := strings.TrimSpace(said.String() + " " + complained.String())
	err = fmt.Errorf("archive %q: the mirror's command ended with status %d: %s", p.name, end.ExitStatus(), cmp.Or(text, "it said nothing; see its own log"))
	if slices.Contains([]int{78, 126, 127}, end.ExitStatus()) { // no configuration of that name, or no such program
		err = transports.Permanent(err)
	}
	return err
}

// pushNote says of all such mirrors what is known of them, which is little; "" if there is none.
func (m *Master) pushNote() string {
	if len(m.pushers) == 0 {
		return ""
	}
	var behind []string
	for _, p := range m.pushers {
		p.mu.Lock()
		switch what := fmt.Sprintf("%s (%s)", p.at.Name, p.module); {
		case p.err != nil:
			behind = append(behind, fmt.Sprintf("%s was not brought up to date: %v", what, p.err))
		case p.want != p.told:
			behind = append(behind, what+" is at work")
		}
		p.mu.Unlock()
	}
	text := fmt.Sprintf("mirrors that run ftpsync, with %d in all of our modules, are told of changes and report nothing", len(m.pushers))
	if len(behind) == 0 {
		return text + "; each has done what it was last told"
	}
	return text + "; " + strings.Join(behind, "; ")
}
