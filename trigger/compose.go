package trigger

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// A compose that takes long leaves the tree half made for as long, whatever order it keeps. Between its beginning and its end mirrors leave the tree alone:
// they are asked to by every head that is signed meanwhile (event/FORMAT.md, 2.3), changes are gathered instead of announced, and what was gathered is
// announced once at the end, as it is then. It is announced however the compose ends, so that nothing which somebody was told is accepted gets lost:
// after an abort, too, the tree is what it is. A compose that nobody ends does so itself when its time is over.

// A ComposeRequest asks for a compose to begin, to last longer, or to end.
type ComposeRequest struct {
	Module event.Module `json:"module"`
	Limit  Seconds      `json:"limit,omitempty"` // from now on: to begin and to extend
	Who    string       `json:"who,omitempty"`   // for people
	Note   string       `json:"note,omitempty"`  // likewise
	Extend bool         `json:"extend,omitempty"`
	Abort  bool         `json:"abort,omitempty"` // to end
}

// Seconds is a span as it travels in requests.
type Seconds int64

// A Compose is the compose of a module that is under way, or else the last one; without Began if there never was one.
type Compose struct {
	Schema  int            `json:"schema"`
	Module  event.Module   `json:"module"`
	Open    bool           `json:"open"`
	Began   time.Time      `json:"began,omitzero"`
	Until   time.Time      `json:"until,omitzero"` // it ends by itself then
	Who     string         `json:"who,omitempty"`
	Note    string         `json:"note,omitempty"`
	Names   int            `json:"names"` // gathered
	Ended   journal.Ending `json:"ended,omitempty"`
	EndedAt time.Time      `json:"ended_at,omitzero"`
}

func composeOf(c journal.Compose) Compose {
	return Compose{Schema: Schema, Module: c.Module, Open: c.Ended == "", Began: c.Began, Until: c.Until, Who: c.Who, Note: c.Note, Names: c.Names, Ended: c.Ended, EndedAt: c.EndedAt}
}

// Times of composes.
const (
	DefaultLimit = 2 * time.Hour
	MaxLimit     = event.MaxHold // what one head can ask for, so that no mirror waits longer than that for a master that is gone
)

// maxWords bounds who and note, in bytes.
const maxWords = 200

// String is c for people, as the end of a sentence.
func (c Compose) String() string {
	s := "since " + c.Began.UTC().Format(time.RFC3339)
	if c.Who != "" {
		s += " by " + c.Who
	}
	if c.Note != "" {
		s += ": " + c.Note
	}
	return s
}

// ending is how the request ends a compose.
func (r ComposeRequest) ending() journal.Ending {
	if r.Abort {
		return journal.Aborted
	}
	return journal.Committed
}

func (r ComposeRequest) check() error {
	for what, text := range map[string]string{"who": r.Who, "note": r.Note} {
		if len(text) > maxWords || !utf8.ValidString(text) {
			return fault.With(fmt.Errorf("%s of a compose: at most %d bytes of UTF-8", what, maxWords), fault.Usage, "say it in fewer words")
		}
		for _, c := range text {
			if !unicode.IsPrint(c) {
				return fault.With(fmt.Errorf("%s of a compose: %q is not printable", what, text), fault.Usage, "leave control characters out")
			}
		}
	}
	if limit := time.Duration(r.Limit) * time.Second; r.Limit < 1 || r.Limit > Seconds(MaxLimit/time.Second) {
		return fault.With(fmt.Errorf("limit of %v for a compose: must be from 1s to %v", limit, MaxLimit), fault.Usage,
			"mirrors wait no longer than a day for a master; extend the compose while it goes on")
	}
	return nil
}

// Compose tells of the compose of a module.
func (p *Publisher) Compose(ctx context.Context, name event.Module) (Compose, error) {
	if _, err := p.module(name); err != nil {
		return Compose{}, err
	}
	c, err := p.Journal.Compose(ctx, name)
	return composeOf(c), err
}

// Begin begins a compose or, with Extend, lets the one under way last until Limit from now.
func (p *Publisher) Begin(ctx context.Context, r ComposeRequest) (Compose, error) {
	if _, err := p.module(r.Module); err != nil {
		return Compose{}, err
	}
	if err := r.check(); err != nil {
		return Compose{}, err
	}
	now := p.Now()
	until := now.Add(time.Duration(r.Limit) * time.Second)
	if r.Extend {
		c, err := p.Journal.ExtendCompose(ctx, r.Module, until, now)
		return composeOf(c), p.explainNone(ctx, r.Module, err)
	}
	c, err := p.Journal.BeginCompose(ctx, journal.Compose{Module: r.Module, Began: now, Until: until, Who: r.Who, Note: r.Note})
	if errors.Is(err, journal.ErrComposing) {
		err = fault.With(fmt.Errorf("module %s: a compose is under way already, %s", r.Module, composeOf(c)), fault.TryAgain,
			"wait for its end, or end it with mirrorbus compose commit or abort; to let it last longer: mirrorbus compose begin --extend")
	}
	return composeOf(c), err
}

// explainNone says of an error that is for want of a compose what became of the last one.
func (p *Publisher) explainNone(ctx context.Context, m event.Module, err error) error {
	if !errors.Is(err, journal.ErrNoCompose) {
		return err
	}
	last, lastErr := p.Journal.Compose(ctx, m)
	switch {
	case lastErr != nil:
		return errors.Join(err, lastErr)
	case last.Ended == journal.Overran:
		return fault.With(fmt.Errorf("module %s: the compose that began at %s was over its time, and ended at %s", m, last.Began.UTC().Format(time.RFC3339),
			last.EndedAt.UTC().Format(time.RFC3339)), fault.Failed, "what it had gathered was announced then; publish what has changed since, and give the next one a longer --limit")
	}
	return fault.With(fmt.Errorf("module %s: no compose is under way", m), fault.Usage, "mirrorbus compose begin begins one")
}

// End ends the compose under way and announces what was gathered, as it is now. Serial is 0 if there was nothing to announce.
func (p *Publisher) End(ctx context.Context, name event.Module, how journal.Ending) (Published, error) {
	done, err := p.end(ctx, name, how)
	return done, p.explainNone(ctx, name, err)
}

// end is End whose error Is journal.ErrNoCompose if none is under way.
func (p *Publisher) end(ctx context.Context, name event.Module, how journal.Ending) (Published, error) {
	m, err := p.module(name)
	if err != nil {
		return Published{}, err
	}
	for tries := 0; ; tries++ {
		done, err := p.inTurn(name, tries, func() (Published, error) { return p.endOnce(ctx, m, how) })
		if !errors.Is(err, journal.ErrGathered) && !errors.Is(err, journal.ErrOvertaken) || ctx.Err() != nil {
			return done, err
		} // more came between the look at the tree and the commit
	}
}

func (p *Publisher) endOnce(ctx context.Context, m ModuleConfig, how journal.Ending) (Published, error) {
	name := event.Module(m.Name)
	c, gathered, err := p.Journal.Gathered(ctx, name)
	if err != nil {
		return Published{}, err
	}
	seen, err := p.Journal.State(ctx, name)
	if err != nil {
		return Published{}, err
	}
	done := Published{Schema: Schema, Module: name, Kind: event.Change}
	names := make([]Name, len(gathered))
	for i, g := range gathered {
		names[i] = Name{Op: g.Op, Path: g.Path, From: g.From}
	}
	set, condensed, err := p.foundNow(ctx, m, names)
	if err != nil {
		return Published{}, err
	}
	if set != nil && len(set) == 0 {
		return done, p.Journal.EndCompose(ctx, c, how)
	}
	a, err := p.Journal.Append(ctx, journal.Entry{
		Module: name, Kind: event.Change, Set: set, Source: "compose " + string(how), Principal: c.Who, Ends: &journal.End{Compose: c, How: how},
		Seen: &seen,
	})
	if err != nil {
		return Published{}, err
	}
	done.Records, done.Condensed = len(set), condensed
	done.Epoch, done.Serial, done.At, done.Line = a.Announcement.Epoch, a.Announcement.Serial, a.Announcement.At, string(a.Line)
	return done, nil
}

// foundNow is what is true of names now. An empty set says that nothing of them is for mirrors; nil stands for anything, as there are too many.
func (p *Publisher) foundNow(ctx context.Context, m ModuleConfig, names []Name) (event.PathSet, bool, error) {
	switch {
	case len(names) == 0:
		return event.PathSet{}, false, nil
	case len(names) > event.MaxRecords:
		return nil, true, nil
	}
	r := NewRequest(event.Module(m.Name), names)
	r.AsFound = true
	done, err := p.resolve(ctx, m, r)
	return done.set, done.condensed, err
}

// gather keeps what r asks for if a compose is under way, and returns until when that lasts; zero if none is.
func (p *Publisher) gather(ctx context.Context, r Request) (time.Time, error) {
	c, err := p.Journal.Compose(ctx, r.Module)
	if err != nil || c.Ended != "" {
		return time.Time{}, err
	}
	if r.whole {
		return time.Time{}, fault.With(fmt.Errorf("module %s: too much differs to be kept until the compose ends", r.Module), fault.TryAgain, "scan again after it")
	}
	names, err := r.names()
	if err != nil {
		return time.Time{}, err
	}
	var all []journal.Gathered
	for _, n := range names {
		if !r.AsFound && (n.Op == 0 || n.Op == event.Gone) {
			n.Op = event.Tree // a directory stands for all below it, and so does one that is there again
		}
		all = append(all, journal.Gathered{Op: n.Op, Path: n.Path, From: n.From})
		if n.Op == event.Renamed {
			all = append(all, journal.Gathered{Op: event.Gone, Path: n.From})
		}
	}
	err = p.Journal.Gather(ctx, r.Module, all)
	if errors.Is(err, journal.ErrNoCompose) { // it has ended meanwhile
		return time.Time{}, nil
	}
	return c.Until, err
}

// Overdue ends the compose under way if its time is over, and tells whether it did.
func (p *Publisher) Overdue(ctx context.Context, name event.Module) (last Compose, done Published, ended bool, err error) {
	c, err := p.Journal.Compose(ctx, name)
	if last = composeOf(c); err != nil || !last.Open || p.Now().Before(last.Until) {
		return last, done, false, err
	}
	done, err = p.end(ctx, name, journal.Overran)
	if errors.Is(err, journal.ErrNoCompose) { // somebody was quicker
		return last, done, false, nil
	}
	return last, done, err == nil, err
}
