package trigger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// Handler answers on the hub's control socket.
//
//	POST /v1/publish   Request -> Published
//	POST /v1/forget    the name of a mirror
//	POST /v1/compose/begin  ComposeRequest -> Compose
//	POST /v1/compose/end    ComposeRequest -> Published, whose serial is 0 if nothing was gathered
//	GET  /v1/compose   ?module -> Compose
//	POST /v1/manifest  module -> nothing; walks the module and builds its manifest anew
//	POST /v1/scan      ScanRequest -> a stream of Scanned; compares the tree with the manifest and announces what differs
//	GET  /v1/status    Status
//	GET  /v1/log       ?module&n -> []LogEntry
//	GET  /v1/wait      ?module&epoch&serial&count -> a stream of Progress
func (h *Hub) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/publish", control.Handle(func(ctx context.Context, _ *http.Request, r Request) (Published, error) {
		return h.Publish(ctx, r)
	}))
	mux.HandleFunc("POST /v1/forget", control.Handle(func(ctx context.Context, _ *http.Request, mirror string) (struct{}, error) {
		return struct{}{}, forget(ctx, h.collector, mirror)
	}))
	mux.HandleFunc("POST /v1/manifest", control.Stream(func(ctx context.Context, r *http.Request, send func(any) error) error {
		return h.rebuild(ctx, event.Module(r.URL.Query().Get("module")), send)
	}))
	mux.HandleFunc("POST /v1/scan", control.StreamOf(func(ctx context.Context, r ScanRequest, send func(any) error) error {
		return h.Scan(ctx, r, func(s Scanned) error { return send(s) })
	}))
	mux.HandleFunc("POST /v1/compose/begin", control.Handle(func(ctx context.Context, _ *http.Request, r ComposeRequest) (Compose, error) {
		return h.Begin(ctx, r)
	}))
	mux.HandleFunc("POST /v1/compose/end", control.Handle(func(ctx context.Context, _ *http.Request, r ComposeRequest) (Published, error) {
		return h.End(ctx, r.Module, r.ending())
	}))
	mux.HandleFunc("GET /v1/compose", control.Handle(func(ctx context.Context, r *http.Request, _ struct{}) (Compose, error) {
		return h.publisher.Compose(ctx, event.Module(r.URL.Query().Get("module")))
	}))
	mux.HandleFunc("GET /v1/status", control.Handle(func(ctx context.Context, _ *http.Request, _ struct{}) (Status, error) {
		return h.Status(ctx)
	}))
	mux.HandleFunc("GET /v1/log", control.Handle(func(ctx context.Context, r *http.Request, _ struct{}) ([]LogEntry, error) {
		n, err := parseCount("n", r.URL.Query())
		if err != nil {
			return nil, err
		}
		return h.publisher.Log(ctx, event.Module(r.URL.Query().Get("module")), n)
	}))
	mux.HandleFunc("GET /v1/wait", control.Stream(func(ctx context.Context, r *http.Request, send func(any) error) error {
		return h.wait(ctx, r.URL.Query(), send)
	}))
	return mux
}

func (h *Hub) wait(ctx context.Context, q url.Values, send func(any) error) error {
	m, err := h.publisher.module(event.Module(q.Get("module")))
	if err != nil {
		return err
	}
	n, err := parseCount("count", q)
	if err != nil {
		return err
	}
	serial, err := event.ParseSerial(q.Get("serial"))
	if err != nil {
		return fault.With(fmt.Errorf("serial: %w", err), fault.Usage, "")
	}
	t, err := h.tip(ctx, event.Module(m.Name))
	if err != nil {
		return err
	}
	if serial == 0 {
		serial = t.Serial
	}
	if e := q.Get("epoch"); e != "" && e != string(t.Epoch) {
		return fault.With(fmt.Errorf("module %s has begun a new epoch, %s", m.Name, t.Epoch), fault.TryAgain, "wait for its newest serial instead")
	}
	if t.Serial == 0 {
		return fault.With(fmt.Errorf("nothing of %s is announced yet", m.Name), fault.Usage, "publish something first")
	}
	if serial > t.Serial {
		return fault.With(fmt.Errorf("serial %d of %s is not announced yet, the newest is %d", serial, m.Name, t.Serial), fault.Usage, "")
	}
	a, err := h.journal.Get(ctx, event.Module(m.Name), serial)
	if err != nil {
		return err
	}
	return h.follow(ctx, a, n, func(p Progress) error { return send(p) })
}

// parseCount reads a number from 0.
func parseCount(key string, q url.Values) (int, error) {
	n, err := strconv.Atoi(q.Get(key))
	if err != nil || n < 0 {
		return 0, fault.With(fmt.Errorf("%s=%.40q: must be a number from 0", key, q.Get(key)), fault.Usage, "")
	}
	return n, nil
}

// forget drops a mirror. A name that was mistyped is not taken for one that is gone.
func forget(ctx context.Context, c *collector.Collector, mirror string) error {
	err := c.Forget(ctx, mirror)
	if errors.Is(err, collector.ErrUnknown) {
		return fault.With(err, fault.Usage, "mirrorbus status lists the mirrors")
	}
	return err
}

// Log lists the newest n announcements of a module.
func (p *Publisher) Log(ctx context.Context, name event.Module, n int) ([]LogEntry, error) {
	m, err := p.module(name)
	if err != nil {
		return nil, err
	}
	stored, err := p.Journal.Log(ctx, event.Module(m.Name), 0, n)
	if err != nil {
		return nil, err
	}
	entries := make([]LogEntry, len(stored))
	for i, a := range stored {
		entries[i] = LogEntry{Epoch: a.Announcement.Epoch, Serial: a.Announcement.Serial, At: a.Created, Kind: a.Announcement.Kind,
			Records: a.Records, Source: a.Source, Principal: a.Principal, Digest: a.Digest, Line: string(a.Line)}
		if a.Announcement.Set.IsZero() {
			entries[i].Records = -1
		}
	}
	return entries, nil
}
