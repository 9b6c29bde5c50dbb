package trigger

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// An exported module is one with what keeps its .mirrorbus/ true.
type exported struct {
	conf     ModuleConfig
	exporter *journal.Exporter
	manifest *manifest.Manifest

	news chan struct{} // holds one token: something was journalled
	due  atomic.Bool   // an announcement that only the manifest explains was made
	say  atomic.Bool   // the head says something else than before, at the same serial

	lists lists // for other clients, if the module has any

	mu       sync.Mutex
	building *Building   // the walk under way, nil if there is none
	scanning bool        // it is a scan
	scanned  *ScanStatus // the last one
	said     string      // the last error that was logged
}

// A Building is how far a walk of a module has come.
type Building struct {
	Entries  int64         `json:"entries"`
	Bytes    int64         `json:"bytes"`
	Expected int64         `json:"expected,omitempty"` // what Entries may come to, 0 if unknown
	Elapsed  time.Duration `json:"elapsed_ns"`
	Done     bool          `json:"done"`
	Notes    []string      `json:"notes,omitempty"`
}

// String writes b with its rate and, where it can be told, the time that is left.
func (b Building) String() string {
	seconds := max(b.Elapsed.Seconds(), 0.001)
	rate := float64(b.Entries) / seconds
	s := fmt.Sprintf("%s names, %s, %.0f a second", humanize.Comma(b.Entries), humanize.IBytes(uint64(max(b.Bytes, 0))), rate)
	switch {
	case b.Done:
		s += fmt.Sprintf(", done in %s", b.Elapsed.Round(10*time.Millisecond))
	case b.Expected > b.Entries && rate > 0:
		s += fmt.Sprintf(", about %s left", time.Duration(float64(b.Expected-b.Entries)/rate*float64(time.Second)).Round(time.Second))
	}
	for _, n := range b.Notes {
		s += "; " + n
	}
	return s
}

// openExports opens what exports each module. It must come before the first announcement: it notices a journal that is older than what it exported.
func openExports(ctx context.Context, conf *Config, j *journal.Journal) (map[event.Module]*exported, error) {
	all := map[event.Module]*exported{}
	for _, m := range conf.Modules {
		x, err := openExport(ctx, conf, m, j)
		if err != nil {
			return nil, errors.Join(err, closeExports(all))
		}
		all[event.Module(m.Name)] = x
	}
	return all, nil
}

func openExport(ctx context.Context, conf *Config, m ModuleConfig, j *journal.Journal) (*exported, error) {
	name := event.Module(m.Name)
	man, err := manifest.Open(ctx, filepath.Join(string(conf.State), "manifest-"+m.Name+".db"), name, manifest.Options{})
	if err != nil {
		return nil, fmt.Errorf("manifest of module %s: %w", name, err)
	}
	e, err := j.NewExporter(ctx, journal.ExportOptions{
		Module: name, Tree: string(m.Path), Dir: string(m.Export), Manifest: man,
		Keep:      journal.Retention{Count: m.KeepSerials, Bytes: int64(m.KeepBytes)},
		HeadEvery: conf.HeadEvery.Duration * 9 / 10, // the hub's timer must not come a moment too early
		HeadTTL:   conf.HeadTTL.Duration, Every: journal.Every{Age: m.ManifestEvery.Duration},
	})
	if err != nil {
		return nil, errors.Join(fault.With(err, fault.Config, ""), man.Close())
	}
	return &exported{conf: m, exporter: e, manifest: man, news: make(chan struct{}, 1), lists: lists{wake: make(chan struct{}, 1)}}, nil
}

func closeExports(all map[event.Module]*exported) error {
	var err error
	for _, x := range all {
		err = errors.Join(err, x.exporter.Close(), x.manifest.Close())
	}
	return err
}

// exportLoop keeps every module's export true: at the start, at each wake-up, and as often as a head is to be signed anew.
func (h *Hub) exportLoop(ctx context.Context) error {
	var walks sync.WaitGroup
	defer walks.Wait()
	tick := time.NewTicker(h.conf.HeadEvery.Duration)
	defer tick.Stop()
	for due := true; ; {
		for name, x := range h.exports {
			if x.due.Swap(false) {
				h.note(x, x.exporter.ExportManifest(ctx))
			} else {
				h.note(x, x.exporter.Export(ctx))
			}
			token(x.lists.wake)
			if due {
				walks.Go(func() { h.ensureManifest(ctx, x) })
				h.sendHead(ctx, name)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			due = true
		case <-h.wake:
			due = false
			if !h.awaited() && !wait(ctx, upkeepPause) {
				return context.Cause(ctx)
			}
		}
	}
}

// upkeepPause is how long an announcement is left alone before it is taken into the manifest. Mirrors pull it in that time, from the same disk; and
// what is announced in one go is taken in at once.
const upkeepPause = 5 * time.Second

// awaited tells whether mirrors wait for a manifest.
func (h *Hub) awaited() bool {
	for _, x := range h.exports {
		if x.due.Load() {
			return true
		}
	}
	return false
}

// wait lets d pass, or returns false because ctx is done.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// note logs an error of an export when it changes.
func (h *Hub) note(x *exported, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	text := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		text = err.Error()
	}
	if text != x.said && text != "" {
		h.log.Error("export", "module", x.conf.Name, "error", err, "hint", fault.HintOf(err))
	}
	x.said = text
}

// headTimeout bounds the telling of one head: what waits behind it is more important.
const headTimeout = 10 * time.Second

// sendHead tells the mirrors where a module stands. It is a hint: lost, it is said again.
func (h *Hub) sendHead(ctx context.Context, m event.Module) {
	h.sendHeadBy(ctx, m, h.outlets.All())
}

// showHead shows where a module stands to mirrors that come and look.
func (h *Hub) showHead(ctx context.Context, m event.Module) {
	polled := slices.DeleteFunc(slices.Clone(h.outlets.All()), func(o outlet.Outlet) bool { return !o.Caps.Polled })
	if len(polled) > 0 {
		h.sendHeadBy(ctx, m, polled)
	}
}

func (h *Hub) sendHeadBy(ctx context.Context, m event.Module, outlets []outlet.Outlet) {
	line, head, err := h.journal.Head(ctx, m, h.conf.HeadTTL.Duration, h.now())
	if err != nil {
		h.log.Error("sign head", "module", m, "error", err)
		return
	}
	t := transports.Topic{Kind: transports.Announce, Module: string(m)}
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	for _, o := range outlets {
		failpoint.Here("head.send")
		if err := o.Transport.Publish(ctx, message(t, headID(head), line)); err != nil {
			h.log.Debug("head not sent", "module", m, "transport", o.Name, "error", err)
		}
	}
}

// ensureManifest builds the manifest of a module that has none, because it is new or a walk did not come to its end, or one that does not lead on
// to the journal.
func (h *Hub) ensureManifest(ctx context.Context, x *exported) {
	pos, err := x.manifest.Position(ctx)
	if err == nil {
		st, stErr := h.journal.State(ctx, event.Module(x.conf.Name))
		if stErr == nil && pos.Epoch == st.Epoch && pos.Serial <= st.Serial && pos.Serial+1 >= st.Floor {
			return
		}
	}
	h.log.Info("building the manifest", "module", x.conf.Name)
	b, err := h.walk(ctx, x, func(Building) error { return nil })
	if errors.Is(err, errWalking) {
		return
	}
	if err != nil {
		h.note(x, err)
		return
	}
	h.log.Info("manifest built", "module", x.conf.Name, "entries", b.Entries, "took", b.Elapsed.Round(time.Millisecond))
	h.sendHead(ctx, event.Module(x.conf.Name))
}

// rebuild walks a module on request and sends how far it is.
func (h *Hub) rebuild(ctx context.Context, m event.Module, send func(any) error) error {
	x := h.exports[m]
	if x == nil {
		_, err := h.publisher.module(m)
		return err
	}
	unsaid := h.unannounced(ctx, x, send)
	b, err := h.walk(ctx, x, func(b Building) error { return send(b) })
	if err != nil {
		return err
	}
	if unsaid != "" {
		h.log.Warn("the manifest was built over changes that nobody announced", "module", m, "changes", unsaid)
		b.Notes = append(b.Notes, "taken for known, though nobody announced it: "+unsaid+"; mirrors that are current do not learn of that unless it is published by name")
	}
	h.sendHead(ctx, m)
	return send(b)
}

// errWalking says that a walk of the module is under way.
var errWalking = errors.New("is being walked already")

// walk builds a manifest.
func (h *Hub) walk(ctx context.Context, x *exported, send func(Building) error) (Building, error) {
	end, err := x.begin(false)
	if err != nil {
		return Building{}, err
	}
	defer end()
	var lost error
	p, err := x.exporter.BuildManifest(ctx, func(p manifest.Progress) {
		b := building(p)
		x.at(b)
		lost = errors.Join(lost, send(b))
	})
	x.lists.rebuilt.Store(true)
	token(x.lists.wake)
	b := building(p)
	b.Done = true
	return b, errors.Join(err, lost)
}

func building(p manifest.Progress) Building {
	b := Building{Entries: p.Entries, Bytes: p.Bytes, Expected: p.Expected, Elapsed: p.Elapsed}
	if p.Special > 0 {
		b.Notes = append(b.Notes, fmt.Sprintf("%d sockets, FIFOs and devices left out", p.Special))
	}
	for _, m := range p.Mounts {
		b.Notes = append(b.Notes, "mount point "+m+" was not entered")
	}
	return b
}

// manifestStatus adds the number of names in a module's manifest, how far a walk under way is, and what the last scan found.
func (h *Hub) manifestStatus(ctx context.Context, s *ModuleStatus) error {
	x := h.exports[s.Module]
	x.mu.Lock()
	s.Scan = x.scanned
	switch {
	case x.building == nil:
	case x.scanning:
		s.Scanning = x.building.String()
	default:
		s.Building = x.building.String()
	}
	x.mu.Unlock()
	n, err := x.manifest.Count(ctx)
	s.Entries = n.Entries
	return err
}
