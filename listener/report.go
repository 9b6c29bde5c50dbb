package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/transports"
)

// seal signs a report and makes the message that carries it.
func (a *Agent) seal(r event.Report) (transports.Message, error) {
	r.Mirror = a.o.Mirror
	line, err := event.Seal(r, a.o.Signer)
	if err != nil {
		return transports.Message{}, err
	}
	return transports.Message{
		Topic: transports.Topic{Kind: transports.Report, Module: string(r.Module)},
		ID:    event.Sum(line).String(),
		Body:  line,
	}, nil
}

// sayHaves says where each module stands: on a transport that has just connected, and on all of them from time to time, so that the master knows
// that this mirror lives. A "have" that does not get through is of no use later, so it is not kept.
func (a *Agent) sayHaves(ctx context.Context) error {
	connected := map[string]bool{}
	tick := time.NewTicker(a.o.HaveEvery)
	defer tick.Stop()
	for {
		select {
		case via := <-a.haves:
			connected[via] = true
			a.sayHave(ctx, via)
		case <-tick.C:
			for via := range connected {
				a.sayHave(ctx, via)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *Agent) sayHave(ctx context.Context, via string) {
	if a.o.Publish == nil {
		return
	}
	for _, name := range a.names {
		trouble, err := a.workers[name].trouble(ctx)
		if err != nil {
			a.o.Log.Warn("could not say where the module stands", "module", name, "transport", via, "error", err)
			return
		}
		msg, err := a.inbox.Have(ctx, trouble)
		if err == nil {
			failpoint.Here("have.send")
			err = a.o.Publish(ctx, via, msg)
		}
		if errors.Is(err, transports.ErrNotConnected) || errors.Is(err, errors.ErrUnsupported) || ctx.Err() != nil {
			return // nobody hears it there, now or ever
		}
		if err != nil {
			a.o.Log.Warn("could not say where the module stands", "module", name, "transport", via, "error", err)
		}
	}
}

// trouble is what is wrong with a module, for a report: its Outcome is empty if nothing is, or nothing that anybody need know of.
func (w *worker) trouble(ctx context.Context) (event.Report, error) {
	r := event.Report{Module: w.m.Name}
	s, err := w.a.inbox.Look(ctx, w.m.Name)
	switch {
	case err != nil:
		return r, err
	case s.Quarantine != "":
		r.Outcome, r.Error = event.Blocked, "quarantined: "+s.Quarantine
	case s.Trouble.Kind != "" && State(s.Trouble.Kind) != pace.Waiting: // an upstream that is behind is no fault of this mirror
		r.Outcome, r.Error = State(s.Trouble.Kind).Outcome(), s.Trouble.Error
	}
	return r, nil
}

// applied is the report on a batch.
func (b *batch) applied(now time.Time) event.Report {
	r := event.Report{
		Module: b.w.m.Name, Epoch: b.epoch, Serial: b.through, Outcome: event.Applied, Started: b.started, Took: now.Sub(b.started),
		Files: b.done.Files, Bytes: b.done.Bytes, Deleted: b.done.Deleted,
	}
	if b.nothingOurs {
		r.Outcome = event.Skipped
	}
	if n := len(b.rows); n > 0 {
		last := b.rows[n-1]
		r.Via, r.Heard = last.Via, last.At.Sub(last.Announcement.At)
	}
	return r
}

// failed is the report on a failure.
func (w *worker) failed(epoch event.Epoch, n event.Serial, s State, err error, next, now time.Time) *event.Report {
	text := err.Error()
	if !next.IsZero() {
		text += fmt.Sprintf("; next try in %v", next.Sub(now).Round(time.Second))
	}
	return &event.Report{Module: w.m.Name, Epoch: epoch, Serial: n, Outcome: s.Outcome(), Error: text}
}
