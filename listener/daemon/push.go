package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
)

// A PushOrder says that something has changed in an archive, and not what.
type PushOrder struct {
	Archive string `json:"archive"`        // "" if it names none
	Whole   bool   `json:"whole"`          // everything; else content only, which comes first
	Hops    bool   `json:"hops,omitempty"` // of content: the post hook is to tell mirrors below before it is done
	From    string `json:"from"`           // whence it came
}

// A PushTicket is what an accepted order is waited for with.
type PushTicket struct {
	Module event.Module `json:"module"`
	Number uint64       `json:"number"`
	Whole  bool         `json:"whole"`
}

// A PushNews is what is in the way of an order, or that it is done.
type PushNews struct {
	Trouble string `json:"trouble,omitempty"`
	Done    bool   `json:"done,omitempty"`
}

// ErrCutOff is in the error of AwaitPush when the agent has ended, and it is not known what became of an order that it has stored.
var ErrCutOff = errors.New("the agent has ended before the push was done")

// A Pusher takes orders: a Daemon, or a Remote one.
type Pusher interface {
	Push(ctx context.Context, o PushOrder) (PushTicket, error)
	AwaitPush(ctx context.Context, t PushTicket, say func(PushNews) error) error
}

// Push implements Pusher. It returns once the order is stored, which an agent that is told to end does not break off.
func (d *Daemon) Push(ctx context.Context, o PushOrder) (PushTicket, error) {
	i := slices.IndexFunc(d.conf.Modules, func(m listener.ModuleConfig) bool { return slices.Contains(m.Push, o.Archive) })
	if i < 0 {
		return PushTicket{}, fault.With(fmt.Errorf("archive %q is not mirrored here by such pushes", o.Archive), fault.Config,
			fmt.Sprintf("to take them, set push = [%q] in the section of its module", o.Archive))
	}
	name := event.Module(d.conf.Modules[i].Name)
	n, err := d.agent.Push(context.WithoutCancel(ctx), name, inbox.Order{Whole: o.Whole, Hops: o.Hops, From: o.From})
	return PushTicket{name, n, o.Whole}, err
}

// AwaitPush implements Pusher.
func (d *Daemon) AwaitPush(ctx context.Context, t PushTicket, say func(PushNews) error) error {
	d.awaited.Add(1)
	defer d.awaited.Add(-1)
	err := d.agent.AwaitPush(ctx, t.Module, t.Number, t.Whole, func(text string) error { return say(PushNews{Trouble: text}) })
	if err == nil {
		err = say(PushNews{Done: true})
	}
	return err
}

// Told waits until those who wait for a push that is done have heard so, for a limited time.
func (d *Daemon) Told(ctx context.Context, limit time.Duration) {
	late := time.After(limit)
	tick := time.NewTicker(limit / 100)
	defer tick.Stop()
	for d.awaited.Load() > 0 {
		select {
		case <-tick.C:
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Remote is the agent behind a control socket.
func Remote(socket string) Pusher { return remote{control.NewClient(socket)} }

type remote struct{ client *control.Client }

func (r remote) Push(ctx context.Context, o PushOrder) (t PushTicket, err error) {
	err = r.client.Do(ctx, "POST", "/v1/push", o, &t)
	return t, err
}

func (r remote) AwaitPush(ctx context.Context, t PushTicket, say func(PushNews) error) error {
	whole := ""
	if t.Whole {
		whole = "?whole=1"
	}
	done := false
	err := r.client.Each(ctx, fmt.Sprintf("/v1/push/%s/%d%s", t.Module, t.Number, whole), func(raw json.RawMessage) error {
		var n PushNews
		if err := json.Unmarshal(raw, &n); err != nil {
			return fmt.Errorf("answer of the daemon: %w", err)
		}
		done = n.Done
		return say(n)
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && !done || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET):
		return fault.With(errors.Join(ErrCutOff, err), fault.TryAgain, "the push is stored, and done when the agent runs again")
	}
	return err
}
