package trigger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// NewRequest makes a request of names.
func NewRequest(m event.Module, names []Name) Request {
	r := Request{Module: m, Names: make([]RequestName, len(names))}
	for i, n := range names {
		r.Names[i] = RequestName{Path: []byte(n.Path), From: []byte(n.From), As: n.As}
		if n.Op != 0 {
			r.Names[i].Op = string(rune(n.Op))
		}
	}
	return r
}

func (r Request) names() ([]Name, error) {
	names := make([]Name, len(r.Names))
	for i, n := range r.Names {
		names[i] = Name{Path: string(n.Path), From: string(n.From), As: n.As}
		switch len(n.Op) {
		case 0:
		case 1:
			names[i].Op = event.Op(n.Op[0])
		default:
			return nil, fault.With(fmt.Errorf("op %.10q: must be one character", n.Op), fault.Usage, "event/FORMAT.md lists them")
		}
	}
	return names, nil
}

// A Publisher turns requests into journalled announcements.
type Publisher struct {
	Journal *journal.Journal
	Modules []ModuleConfig
	Now     func() time.Time

	exports map[event.Module]*exported // whose manifests tell of other names of an inode, and of names that mirrors never had; may be nil
	under   underway
}

// Publish announces what r names. When it returns nil the announcement is durable and will reach every live mirror. Nothing was announced if it fails, or if
// of names that are taken as found none is left: then the serial is 0.
func (p *Publisher) Publish(ctx context.Context, r Request) (Published, error) {
	m, err := p.module(r.Module)
	if err != nil {
		return Published{}, err
	}
	defer p.under.begin(r.Module)()
	for tries := 0; ; tries++ {
		done, err := p.inTurn(r.Module, tries, func() (Published, error) { return p.publishOnce(ctx, m, r) })
		if !errors.Is(err, journal.ErrOvertaken) || ctx.Err() != nil {
			return done, err
		} // who looked later was quicker
	}
}

// publishOnce is Publish whose error Is journal.ErrOvertaken if what it has seen of the tree may be older than what was announced meanwhile.
func (p *Publisher) publishOnce(ctx context.Context, m ModuleConfig, r Request) (Published, error) {
	seen, err := p.Journal.State(ctx, r.Module)
	if err != nil {
		return Published{}, err
	}
	found, err := p.resolve(ctx, m, r)
	if err != nil {
		return Published{}, err
	}
	done := Published{Schema: Schema, Module: r.Module, Kind: event.Change, Records: len(found.set), Condensed: found.condensed, LeftOut: found.leftOut, ahead: found.ahead}
	if r.Flip {
		done.Kind = event.Flip
	}
	e := journal.Entry{Module: r.Module, Kind: done.Kind, Set: found.set, Source: r.Source, Principal: r.Principal, Seen: &seen}
	if e.NotBefore, e.Expires, err = p.window(r); err != nil {
		return Published{}, err
	}
	e.Was = found.was
	if r.DryRun {
		done.Set = Describe(found.set)
	}
	if r.DryRun || found.nothing() {
		return done, nil
	}
	failpoint.Here("publish.asked")
	a, held, err := p.accept(ctx, r, e)
	if done.Held = held; err != nil || !held.IsZero() {
		return done, err
	}
	failpoint.Here("publish.journalled")
	done.Epoch, done.Serial, done.At, done.Line = a.Announcement.Epoch, a.Announcement.Serial, a.Announcement.At, string(a.Line)
	return done, nil
}

// accept journals an entry or, if a compose is under way, keeps what r asks for until its end and returns when that is at the latest. Flips pass.
func (p *Publisher) accept(ctx context.Context, r Request, e journal.Entry) (journal.Appended, time.Time, error) {
	for {
		if !r.Flip {
			if held, err := p.gather(ctx, r); err != nil || !held.IsZero() {
				return journal.Appended{}, held, err
			}
		}
		a, err := p.Journal.Append(ctx, e)
		if !errors.Is(err, journal.ErrComposing) || ctx.Err() != nil { // else one began a moment ago
			return a, time.Time{}, err
		}
	}
}

func (p *Publisher) module(name event.Module) (ModuleConfig, error) {
	var known []string
	for _, m := range p.Modules {
		if m.Name == string(name) {
			return m, nil
		}
		known = append(known, m.Name)
	}
	return ModuleConfig{}, fault.With(fmt.Errorf("module %q is not one of this master's", name), fault.Usage, "its modules are "+strings.Join(known, ", "))
}

// A resolved is what a request comes down to.
type resolved struct {
	set       event.PathSet // nil: look at the manifest
	condensed bool
	leftOut   int
	was       uint32 // the permissions that the paths of a flip keep until its time, see Request.Mode
	ahead     bool   // an index is no more the version that is announced
}

func (r resolved) nothing() bool { return r.set != nil && len(r.set) == 0 }

// resolve looks at the named paths and makes the path set.
func (p *Publisher) resolve(ctx context.Context, m ModuleConfig, r Request) (resolved, error) {
	names, err := r.checked()
	if err != nil || r.whole {
		return resolved{condensed: r.whole}, err
	}
	root, err := os.OpenRoot(string(m.Path))
	if err != nil {
		return resolved{}, fault.With(fmt.Errorf("module %s: %w", m.Name, err), fault.Config, "is its path right, and may this user read it?")
	}
	defer root.Close() //nolint:errcheck // it was only read
	index, err := m.IsIndex()
	if err != nil {
		return resolved{}, err
	}
	look := newResolver(root, index, len(names))
	var done resolved
	var records []event.Record
	if r.AsFound {
		records, done.leftOut, err = p.found(ctx, r.Module, look, names)
		done.ahead = look.ahead
	} else {
		records, err = look.records(names)
	}
	if err == nil {
		done.set, err = look.set(p.linked(ctx, r.Module, look, records))
	}
	if err != nil {
		return resolved{}, explain(err)
	}
	if r.Mode != 0 {
		if done.was, err = withMode(done.set, r.Mode); err != nil {
			return resolved{}, err
		}
	}
	switch condensed, ok := done.set.Condense(m.PerDirectory, m.MaxPaths); {
	case len(done.set) == 0:
		done.set = event.PathSet{} // of nothing, which is not nil
	case r.Flip:
	case !ok:
		done.set, done.condensed = nil, true
	default:
		done.set, done.condensed = condensed, len(condensed) != len(done.set)
	}
	return done, nil
}

// checked are the names of a request that makes sense.
func (r Request) checked() ([]Name, error) {
	names, err := r.names()
	switch {
	case err != nil:
		return nil, err
	case r.Flip && r.AsFound:
		return nil, fault.With(errors.New("a flip of names as they are found"), fault.Usage, "a flip names what it releases")
	case len(names) == 0 && !r.AsFound:
		return nil, fault.With(fmt.Errorf("nothing to announce in %s", r.Module), fault.Usage, "name paths, or give a list with --from")
	}
	for _, n := range names {
		if err := n.checkVersion(r.AsFound); err != nil {
			return nil, err
		}
	}
	for i := range names {
		if !r.Flip {
			break
		}
		if names[i].Op != 0 && names[i].Op != event.Meta {
			return nil, fault.With(fmt.Errorf("path %q: op %c in a flip", names[i].Path, names[i].Op), fault.Usage, "a flip changes metadata only; publish the rest on its own first")
		}
		names[i].Op = event.Meta
	}
	return names, nil
}

// withMode gives the records of a flip the permissions that their paths are to get, and returns those that they have.
func withMode(set event.PathSet, mode uint32) (was uint32, err error) {
	for i, r := range set {
		switch has := r.Mode & 0o7777; {
		case r.Mode&event.ModeType == event.ModeLink:
			return 0, fault.With(fmt.Errorf("path %q is a symbolic link, which has no permissions", r.Path), fault.Usage, "name what it leads to")
		case has == mode:
			return 0, fault.With(fmt.Errorf("path %q has the permissions %04o already", r.Path, mode), fault.Usage, "leave the master's tree as it is until that time")
		case has == 0:
			return 0, fault.With(fmt.Errorf("path %q has the permissions 0000, by which it cannot be kept closed until then", r.Path), fault.Usage, "give it some, such as 0700, first")
		case i > 0 && has != was:
			return 0, fault.With(fmt.Errorf("path %q has the permissions %04o, those before it %04o", r.Path, has, was), fault.Usage, "announce paths with the same permissions together")
		default:
			was = has
		}
		set[i].Mode = r.Mode&^0o7777 | mode
	}
	return was, nil
}

// window turns a flip's times into what the announcement carries: counted from now in whole seconds.
func (p *Publisher) window(r Request) (notBefore, expires time.Duration, err error) {
	if !r.Flip {
		if !r.NotBefore.IsZero() || !r.Expires.IsZero() {
			err = fault.With(errors.New("only a flip can wait or expire"), fault.Usage, "publish the content now and its metadata as a flip")
		}
		return 0, 0, err
	}
	now := p.Now().Truncate(time.Second)
	if r.NotBefore.After(now) {
		notBefore = r.NotBefore.Sub(now).Round(time.Second)
	}
	if r.Mode != 0 && (notBefore <= 0 || r.Mode > 0o7777) {
		return 0, 0, fault.With(fmt.Errorf("permissions %04o for a flip that does not wait for a time to come", r.Mode), fault.Usage,
			"change them on the master and announce that; what is to change later needs the time")
	}
	if !r.Expires.IsZero() {
		expires = r.Expires.Sub(now).Round(time.Second)
		if expires <= max(notBefore, 0) {
			return 0, 0, fault.With(fmt.Errorf("the flip would expire at %s, before it may be applied", r.Expires.Format(time.RFC3339)), fault.Usage, "give a later expiry")
		}
	}
	return notBefore, expires, nil
}

// explain gives a path error the status and hint of a command line.
func explain(err error) error {
	if p, ok := asPathError(err); ok {
		return fault.With(err, fault.Usage, p.Hint+"; nothing was announced")
	}
	return fault.With(err, fault.Usage, "nothing was announced")
}

// Describe writes a path set for people and scripts.
func Describe(set event.PathSet) []Described {
	all := make([]Described, len(set))
	for i, r := range set {
		all[i] = Described{Op: string(rune(r.Op)), Path: printable(r.Path), From: printable(r.From), Size: r.Size}
		if r.Mode != 0 {
			all[i].Mode, all[i].MTime = strconv.FormatUint(uint64(r.Mode), 8), r.MTime.Time()
		}
	}
	return all
}

// String writes d as one line.
func (d Described) String() string {
	s := d.Op
	if d.Mode != "" {
		s += fmt.Sprintf(" %6s %12d %s", d.Mode, d.Size, d.MTime.UTC().Format(time.DateTime))
	}
	if d.From != "" {
		return s + " " + d.Path + " (was " + d.From + ")"
	}
	return s + " " + d.Path
}

func printable(s string) string {
	for _, c := range s {
		if !unicode.IsPrint(c) || c == utf8.RuneError {
			return strconv.Quote(s)
		}
	}
	return s
}
