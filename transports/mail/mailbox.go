package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"github.com/mirrorbus/mirrorbus/transports"
)

// A mailbox is where mail is fetched by IMAP, as soon as the server says that there is some.
type mailbox struct {
	t    *transport
	in   *intake
	c    *imapclient.Client
	raw  net.Conn
	news chan struct{} // holds a token when there may be new mail

	validity uint32   // of the UIDs
	last     imap.UID // up to here everything is taken
}

// openMailbox logs in and opens the mailbox. The library waits for a silent server without end, so every step has its time here.
func openMailbox(ctx context.Context, t *transport, in *intake) (*mailbox, error) {
	raw, err := (&net.Dialer{Timeout: t.post.Timeout.Duration}).DialContext(ctx, "tcp", t.post.IMAP)
	if err != nil {
		return nil, fmt.Errorf("mailbox: %w", err)
	}
	m := &mailbox{t: t, in: in, raw: raw, news: make(chan struct{}, 1)}
	if err := m.step(ctx, "log in", func() error { return m.begin(ctx) }); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// close ends the connection and what the library started for it.
func (m *mailbox) close() {
	m.raw.Close() //nolint:errcheck // everything that still reads or writes says so
	if m.c != nil {
		m.c.Close() //nolint:errcheck // likewise
	}
}

// step does something that the server is to answer in time.
func (m *mailbox) step(ctx context.Context, what string, do func() error) error {
	closed := make(chan struct{})
	ctx, cancel := context.WithTimeoutCause(ctx, m.t.post.Timeout.Duration, fmt.Errorf("no answer within %v", m.t.post.Timeout.Duration))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		m.raw.Close() //nolint:errcheck // everything that still reads or writes says so
		close(closed)
	})
	err := do()
	if !stop() {
		<-closed
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("mailbox %s: %s: %w", m.t.post.IMAP, what, err)
	}
	return nil
}

func (m *mailbox) begin(ctx context.Context) error {
	p := &m.t.post
	conf, err := p.tlsFor(p.IMAP)
	if err != nil {
		return transports.Permanent(err)
	}
	options := &imapclient.Options{TLSConfig: conf, UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: func(d *imapclient.UnilateralDataMailbox) {
		if d.NumMessages != nil {
			m.mayHaveNews()
		}
	}}}
	switch p.IMAPTLS {
	case tlsImplicit:
		secure := tls.Client(m.raw, conf)
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		m.c = imapclient.New(secure, options)
	case tlsStart:
		if m.c, err = imapclient.NewStartTLS(m.raw, options); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	default:
		m.c = imapclient.New(m.raw, options)
	}
	if err := m.c.Login(p.IMAPUser, p.IMAPPassword.Reveal()).Wait(); err != nil {
		return refusedLogin(p.IMAPUser, err)
	}
	return m.choose(ctx)
}

// refusedLogin says why we are not let in, without what we have said.
func refusedLogin(user string, err error) error {
	var answer *imap.Error
	if !errors.As(err, &answer) {
		return err
	}
	err = fmt.Errorf("%s is not let in: %s; see imap_user and imap_password_file", user, oneLine(answer.Text))
	if answer.Code == imap.ResponseCodeUnavailable || answer.Code == imap.ResponseCodeInUse || answer.Code == imap.ResponseCodeLimit {
		return err
	}
	return transports.Permanent(err)
}

// choose selects the mailbox, and finds where we are in it. With another UIDVALIDITY all UIDs are others, and everything may be new.
func (m *mailbox) choose(ctx context.Context) error {
	found, err := m.c.Select(m.t.post.Mailbox, nil).Wait()
	if err != nil {
		return fmt.Errorf("select %s: %w", m.t.post.Mailbox, err)
	}
	m.validity = found.UIDValidity
	if m.t.env.Bookmarks == nil {
		return nil
	}
	text, err := m.t.env.Bookmarks.Bookmark(ctx, m.mark())
	if err != nil {
		return err
	}
	validity, last, ok := strings.Cut(text, " ")
	if ok && validity == strconv.FormatUint(uint64(m.validity), 10) {
		uid, err := strconv.ParseUint(last, 10, 32)
		if err != nil {
			return fmt.Errorf("bookmark %q: %w", text, err)
		}
		m.last = imap.UID(uid)
	}
	return nil
}

func (m *mailbox) mark() string {
	return fmt.Sprintf("mail imap %s %s %s", m.t.post.IMAPUser, m.t.post.IMAP, m.t.post.Mailbox)
}

func (m *mailbox) save(ctx context.Context) error {
	if m.t.env.Bookmarks == nil {
		return nil
	}
	return m.t.env.Bookmarks.SetBookmark(ctx, m.mark(), fmt.Sprintf("%d %d", m.validity, m.last))
}

func (m *mailbox) mayHaveNews() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// watch takes what is there and what comes, until ctx is done or the connection ends.
func (m *mailbox) watch(ctx context.Context) error {
	for {
		if err := m.fetchAll(ctx); err != nil {
			return err
		}
		if err := m.wait(ctx); err != nil {
			return err
		}
	}
}

// pollFor is how long is waited at most with a server that cannot tell when something comes.
const pollFor = time.Minute

// wait waits until there may be new mail. The server must answer at the end of it.
func (m *mailbox) wait(ctx context.Context) error {
	if !m.c.Caps().Has(imap.CapIdle) {
		if err := m.pause(ctx, min(pollFor, m.t.post.IMAPIdle.Duration)); err != nil {
			return err
		}
		return m.step(ctx, "NOOP", func() error { return m.c.Noop().Wait() })
	}
	var idle *imapclient.IdleCommand
	if err := m.step(ctx, "IDLE", func() (err error) { idle, err = m.c.Idle(); return err }); err != nil {
		return err
	}
	err := m.pause(ctx, m.t.post.IMAPIdle.Duration)
	done := m.step(ctx, "end of IDLE", func() error { return errors.Join(idle.Close(), idle.Wait()) })
	if err != nil {
		return err
	}
	return done
}

// pause waits for news.
func (m *mailbox) pause(ctx context.Context, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-m.news:
	case <-timer.C:
	case <-m.c.Closed():
		return fmt.Errorf("mailbox %s: %w", m.t.post.IMAP, transports.ErrClosed)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// fetchAll takes what is new: mails of ours, and bounces. Everything else in the mailbox is not touched, not even looked at.
func (m *mailbox) fetchAll(ctx context.Context) error {
	var uids []imap.UID
	err := m.step(ctx, "search", func() error {
		field := func(key, value string) imap.SearchCriteria {
			return imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: key, Value: value}}}
		}
		var above imap.UIDSet
		above.AddRange(m.last+1, 0)
		what := &imap.SearchCriteria{UID: []imap.UIDSet{above}, Or: [][2]imap.SearchCriteria{{field(fieldTopic, ""), field("Content-Type", "delivery-status")}}}
		if m.last == 0 { // where we were is not known, as on a host that keeps no bookmarks: what was taken is marked
			what.NotFlag = []imap.Flag{imap.FlagSeen}
		}
		found, err := m.c.UIDSearch(what, nil).Wait()
		if err == nil {
			uids = found.AllUIDs()
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, uid := range uids {
		if uid <= m.last { // "from 8 on" holds the last one also where that is 7
			continue
		}
		if err := m.take(ctx, uid); err != nil {
			return err
		}
	}
	return nil
}

// take takes one mail.
func (m *mailbox) take(ctx context.Context, uid imap.UID) error {
	section := &imap.FetchItemBodySection{Peek: true, Partial: &imap.SectionPartial{Size: maxMail + 1}}
	var raw []byte
	err := m.step(ctx, "fetch", func() error {
		all, err := m.c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		if err == nil && len(all) == 1 { // it may have been taken away meanwhile
			raw = all[0].FindBodySection(section)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(raw) > maxMail {
		m.t.count("too_large")
	} else if raw != nil {
		err = m.in.take(raw)
	}
	var refusal *transports.Refusal
	if err != nil && !errors.As(err, &refusal) { // nobody is told of a refusal: who has sent it is not there
		return err
	}
	m.last = uid
	if err := m.save(context.WithoutCancel(ctx)); err != nil { // it is safe, which is to be known also if all ends now
		return err
	}
	return m.settle(ctx, uid)
}

// settle marks a mail that is safe as seen, or takes it away.
func (m *mailbox) settle(ctx context.Context, uid imap.UID) error {
	flags := []imap.Flag{imap.FlagSeen}
	if m.t.post.Delete {
		flags = append(flags, imap.FlagDeleted)
	}
	err := m.step(ctx, "mark as seen", func() error {
		return m.c.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: flags}, nil).Close()
	})
	if err != nil || !m.t.post.Delete || !m.c.Caps().Has(imap.CapUIDPlus) { // else somebody else expunges it
		return err
	}
	return m.step(ctx, "expunge", func() error { return m.c.UIDExpunge(imap.UIDSetNum(uid)).Close() })
}
