package daemon

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

// Schema is the version of the types that travel on the control socket and that --json prints.
const Schema = 1

// A Status is where a mirror stands, with its transports.
type Status struct {
	Schema  int  `json:"schema"`
	Running bool `json:"running"` // false when read from the inbox while no agent runs
	listener.Status
	Transports []outlet.Status `json:"transports,omitempty"`
}

// handler answers:
//
//	GET  /v1/status           Status
//	GET  /v1/plan/{module}    Plan
//	GET  /v1/verify/{module}  ?checksum=1 -> a stream of Finding
//	POST /v1/{confirm,release,sync}/{module}
//	POST /v1/push             PushOrder -> PushTicket
//	GET  /v1/push/{module}/{number}  ?whole=1 -> a stream of PushNews, which ends when it is done or with an error
func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", control.Handle(func(ctx context.Context, _ *http.Request, _ struct{}) (Status, error) {
		s, err := d.Status(ctx)
		s.Running = true
		return s, err
	}))
	mux.HandleFunc("GET /v1/plan/{module}", control.Handle(func(ctx context.Context, r *http.Request, _ struct{}) (Plan, error) {
		return d.Plan(ctx, event.Module(r.PathValue("module")))
	}))
	mux.HandleFunc("GET /v1/verify/{module}", control.Stream(func(ctx context.Context, r *http.Request, send func(any) error) error {
		return d.Verify(ctx, event.Module(r.PathValue("module")), r.URL.Query().Get("checksum") != "", func(f Finding) error { return send(f) })
	}))
	mux.HandleFunc("POST /v1/push", control.Handle(func(ctx context.Context, _ *http.Request, o PushOrder) (PushTicket, error) { return d.Push(ctx, o) }))
	mux.HandleFunc("GET /v1/push/{module}/{number}", control.Stream(func(ctx context.Context, r *http.Request, send func(any) error) error {
		n, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
		if err != nil {
			return fault.With(fmt.Errorf("number of a push: %w", err), fault.Usage, "")
		}
		t := PushTicket{Module: event.Module(r.PathValue("module")), Number: n, Whole: r.URL.Query().Get("whole") != ""}
		return d.AwaitPush(ctx, t, func(n PushNews) error { return send(n) })
	}))
	for verb, do := range map[string]func(context.Context, event.Module) error{
		"confirm": d.agent.Confirm, "release": d.agent.Release, "sync": d.agent.SyncNow,
	} {
		mux.HandleFunc("POST /v1/"+verb+"/{module}", control.Handle(func(ctx context.Context, r *http.Request, _ struct{}) (struct{}, error) {
			return struct{}{}, do(ctx, event.Module(r.PathValue("module")))
		}))
	}
	return mux
}

// Status says where everything stands.
func (d *Daemon) Status(ctx context.Context) (Status, error) {
	s := Status{Schema: Schema}
	var err error
	if s.Status, err = d.agent.Status(ctx); err != nil {
		return s, err
	}
	s.Transports, err = d.outlets.Status(ctx)
	return s, err
}
