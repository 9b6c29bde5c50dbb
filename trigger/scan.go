package trigger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// scan compares a module's tree with its manifest and has publish announce what differs. What is announced already is taken into the manifest first, so that
// it is not announced again. send is told how far the scan is, and last of all what it found.
func (p *Publisher) scan(ctx context.Context, r ScanRequest, send func(Scanned) error, publish func(context.Context, Request) (Published, error)) (Scanned, error) {
	m, err := p.module(r.Module)
	if err != nil {
		return Scanned{}, err
	}
	if r.Moved && len(r.Dirs) > 0 {
		return Scanned{}, fault.With(errors.New("the whole tree has moved, or nothing has"), fault.Usage, "scan the whole module with --moved, without naming directories")
	}
	x := p.exports[r.Module]
	if err := x.scannable(ctx); err != nil {
		return Scanned{}, unscanned(m, fmt.Errorf("module %s: %w", m.Name, err))
	}
	end, err := x.begin(true)
	if err != nil {
		return Scanned{}, err
	}
	defer end()
	index, err := m.IsIndex()
	if err != nil {
		return Scanned{}, err
	}
	before, err := p.Journal.State(ctx, r.Module)
	if err != nil {
		return Scanned{}, err
	}
	d, err := p.difference(ctx, x, r, send)
	if err != nil {
		return Scanned{}, unscanned(m, err)
	}
	done := scanned(d)
	sight := sight{index: index, since: before.Serial}
	sight.look(d.Set)
	switch {
	case sight.doubtful() && !r.DryRun:
		if done, d, err = p.passes(ctx, x, r, &sight, send, publish); err != nil {
			return done, unscanned(m, err)
		}
	case len(d.Set) > 0 || d.Whole:
		pub, err := publish(ctx, r.request(d))
		if err != nil {
			return done, err
		}
		if pub.Serial != 0 || r.DryRun {
			done.Published = &pub
		}
	}
	if d.Unsettled && len(r.Dirs) == 0 && !r.DryRun {
		err = x.manifest.Settle(ctx, d)
	}
	return done, errors.Join(err, send(done))
}

// scannable says why a scan cannot begin: it would keep the manifest from being built, or make the folder of a tree that is not there.
func (x *exported) scannable(ctx context.Context) error {
	_, err := x.manifest.Position(ctx)
	if err == nil {
		_, err = os.Lstat(string(x.conf.Path))
	}
	return err
}

// difference is how the tree differs from what is announced.
func (p *Publisher) difference(ctx context.Context, x *exported, r ScanRequest, send func(Scanned) error) (manifest.Difference, error) {
	if err := x.exporter.Export(ctx); err != nil {
		return manifest.Difference{}, err
	}
	before, err := p.Journal.State(ctx, r.Module)
	if err != nil {
		return manifest.Difference{}, err
	}
	d, err := x.compare(ctx, r, send)
	if err == nil {
		d.Set, err = p.still(ctx, x, before.Serial, d.Set)
	}
	return d, err
}

// begin lets one walk of the module begin, for a scan or a manifest, and returns what ends it: at most one is under way.
func (x *exported) begin(scan bool) (end func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.building != nil {
		return nil, fault.With(fmt.Errorf("module %s %w", x.conf.Name, errWalking), fault.TryAgain, "see mirrorbus status")
	}
	x.building, x.scanning = &Building{}, scan
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.building = nil
	}, nil
}

// at notes how far the walk under way is.
func (x *exported) at(b Building) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.building = &b
}

// compare walks the tree.
func (x *exported) compare(ctx context.Context, r ScanRequest, send func(Scanned) error) (manifest.Difference, error) {
	o := manifest.CompareOptions{PerDirectory: x.conf.PerDirectory, Limit: x.conf.MaxPaths, Moved: r.Moved}
	for _, dir := range r.Dirs {
		o.Dirs = append(o.Dirs, string(dir))
	}
	ctx, cancel := context.WithCancelCause(ctx) // who does not listen any more does not want it
	defer cancel(nil)
	d, err := x.manifest.Compare(ctx, string(x.conf.Path), o, func(p manifest.Progress) {
		b := building(p)
		x.at(b)
		if err := send(Scanned{Building: b}); err != nil {
			cancel(err)
		}
	})
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return d, err
}

// still leaves out what was announced while the tree was walked.
func (p *Publisher) still(ctx context.Context, x *exported, serial event.Serial, set event.PathSet) (event.PathSet, error) {
	now, err := p.Journal.State(ctx, event.Module(x.conf.Name))
	if err != nil || now.Serial == serial || len(set) == 0 {
		return set, err
	}
	if err := x.exporter.Export(ctx); err != nil {
		return nil, err
	}
	return x.manifest.Still(ctx, string(x.conf.Path), set)
}

// request asks for a difference to be announced. It names names, which are looked at once more: since they were compared, time has passed.
func (r ScanRequest) request(d manifest.Difference) Request {
	names := make([]Name, len(d.Set))
	for i, rec := range d.Set {
		names[i] = Name{Op: rec.Op, Path: rec.Path, From: rec.From}
	}
	return r.named(names, d.Whole)
}

// named asks for names to be announced or, if whole is true, that anything may have changed.
func (r ScanRequest) named(names []Name, whole bool) Request {
	req := NewRequest(r.Module, names)
	req.AsFound, req.DryRun, req.Principal, req.Source, req.whole = true, r.DryRun, r.Principal, r.Source, whole
	if req.Source == "" {
		req.Source = "scan"
	}
	return req
}

func scanned(d manifest.Difference) Scanned {
	s := Scanned{Building: building(d.Progress), Found: Found(d.Found)}
	s.Done = true
	for _, dir := range d.Unseen {
		s.Notes = append(s.Notes, fmt.Sprintf("%s is neither in the tree nor in the manifest", printable(dir)))
	}
	if d.Whole {
		s.Notes = append(s.Notes, "so much differs that mirrors compare themselves with the manifest")
	}
	return s
}

// unscanned gives an error of a comparison its status and hint.
func unscanned(m ModuleConfig, err error) error {
	switch {
	case fault.HintOf(err) != "": // it says what it is
	case errors.Is(err, manifest.ErrNotBuilt):
		return fault.With(err, fault.TryAgain, "the hub builds it when it starts; mirrorbus status tells how far it is")
	case errors.Is(err, fs.ErrPermission):
		return fault.With(err, fault.Failed, "nothing was announced; let the user read it, or scan other directories by name")
	case errors.Is(err, fs.ErrNotExist):
		return fault.With(err, fault.Config, "nothing was announced; is the path of module "+m.Name+" right, and its file system mounted?")
	}
	return err
}

// Scan compares a module's tree with its manifest and announces what differs; send is told how far it is.
func (h *Hub) Scan(ctx context.Context, r ScanRequest, send func(Scanned) error) error {
	done, err := h.publisher.scan(ctx, r, send, h.Publish)
	x := h.exports[r.Module]
	if x == nil || r.DryRun || errors.Is(err, errWalking) {
		return err
	}
	s := ScanStatus{At: h.now(), Elapsed: done.Elapsed, Found: done.Found}
	if done.Published != nil {
		s.Serial = done.Published.Serial
	}
	if err != nil {
		s.Error = err.Error()
	}
	x.mu.Lock()
	x.scanned = &s
	x.mu.Unlock()
	if s.Serial != 0 {
		h.log.Info("scanned", "module", r.Module, "names", done.Entries, "took", done.Elapsed.Round(time.Millisecond), "serial", s.Serial)
	}
	return err
}

// unannounced says how the tree differs from what was announced, before that is taken for known: "" if it does not. Where that cannot be told, because the tree lies
// elsewhere than it did or the manifest is of no use, the new one is built all the same: it is what helps then.
func (h *Hub) unannounced(ctx context.Context, x *exported, send func(any) error) string {
	if x.scannable(ctx) != nil {
		return ""
	}
	end, err := x.begin(true)
	if err != nil {
		return ""
	}
	defer end()
	d, err := h.publisher.difference(ctx, x, ScanRequest{Module: event.Module(x.conf.Name)}, func(s Scanned) error { return send(s.Building) })
	switch {
	case err != nil:
		return ""
	case d.Whole:
		return "so much that it is not counted"
	case len(d.Set) == 0:
		return ""
	}
	return fmt.Sprintf("%s, for one %.200q", Found(d.Found), d.Set[0].Path)
}

// scanLoop scans a module again and again. What keeps a scan from being made is tried again soon, what makes one fail at the next turn.
func (h *Hub) scanLoop(ctx context.Context, x *exported) error {
	every := x.conf.ScanEvery.Duration
	said := ""
	for pause := min(every, scanSoon); wait(ctx, spread(pause)); {
		err := h.Scan(ctx, ScanRequest{Module: event.Module(x.conf.Name)}, func(Scanned) error { return nil })
		if pause = every; fault.StatusOf(err) == fault.TryAgain {
			pause, err = min(every, scanSoon), nil
		}
		text := ""
		if err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != said && text != "" {
			h.log.Error("scan", "module", x.conf.Name, "error", err, "hint", fault.HintOf(err))
		}
		said = text
	}
	return context.Cause(ctx)
}

// scanSoon is how long a hub that starts waits before the first scan, and one whose manifest is not built before the next.
const scanSoon = 10 * time.Second

// spread makes d up to a tenth longer or shorter, so that many modules are not walked at once for ever.
func spread(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// String writes what a scan found, in words.
func (f Found) String() string {
	if f == (Found{}) {
		return "nothing differs"
	}
	return fmt.Sprintf("%d added, %d changed, %d in their metadata, %d removed, %d renamed", f.Added, f.Changed, f.Meta, f.Removed, f.Renamed)
}

// String writes what became of a scan.
func (s ScanStatus) String() string {
	switch {
	case s.Error != "":
		return "failed: " + s.Error
	case s.Serial != 0:
		return fmt.Sprintf("%s; serial %d", s.Found, s.Serial)
	}
	return s.Found.String()
}
