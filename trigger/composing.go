package trigger

import (
	"context"
	"log/slog"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// Begin begins a compose, or lets it last longer. When it returns nil, who reads the exported head is asked to wait; those who are connected are told.
func (h *Hub) Begin(ctx context.Context, r ComposeRequest) (Compose, error) {
	x := h.exports[r.Module]
	if x != nil {
		h.overdue(ctx, x) // or one that is over would be in the way
	}
	c, err := h.publisher.Begin(ctx, r)
	if err != nil {
		return c, err
	}
	h.log.Info("compose begun", "module", c.Module, "until", c.Until, "who", c.Who, "note", c.Note, "extended", r.Extend)
	h.note(x, x.exporter.Advance(ctx))
	h.composed(x)
	return c, nil
}

// End ends a compose and announces what was gathered, which then goes the way of everything that is announced.
func (h *Hub) End(ctx context.Context, m event.Module, how journal.Ending) (Published, error) {
	p, err := h.publisher.End(ctx, m, how)
	if err != nil {
		return p, err
	}
	p.Relaying = true
	h.log.Info("compose ended", "module", m, "how", how, "serial", p.Serial, "records", p.Records)
	h.ended(h.exports[m], p)
	return p, nil
}

// ended sees to it that mirrors learn of the end of a compose.
func (h *Hub) ended(x *exported, p Published) {
	if p.Serial > 0 && p.Records == 0 {
		x.due.Store(true)
	}
	token(x.news)
	h.composed(x)
}

// composed sees to it that those who are connected are told the new head, and that the end of the compose is waited for.
func (h *Hub) composed(x *exported) {
	x.say.Store(true)
	token(h.composes)
}

// composeCheck is how often it is looked for composes that are over their time without being woken, since clocks are set.
const composeCheck = time.Minute

// composeLoop ends composes that nobody ends, and tells heads that a compose has changed.
func (h *Hub) composeLoop(ctx context.Context) error {
	for {
		next := composeCheck
		for name, x := range h.exports {
			next = min(next, h.overdue(ctx, x))
			if x.say.Swap(false) {
				h.sendHead(ctx, name)
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-h.composes:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// overdue ends a module's compose if its time is over, and returns how long to wait for the next look.
func (h *Hub) overdue(ctx context.Context, x *exported) time.Duration {
	last, done, ended, err := h.publisher.Overdue(ctx, event.Module(x.conf.Name))
	switch {
	case ctx.Err() != nil:
	case err != nil:
		h.log.Error("a compose is over its time and cannot be ended, trying again", "module", x.conf.Name, "until", last.Until, "error", err)
	case ended:
		overran(h.log, last, done)
		h.ended(x, done)
	case last.Open:
		return max(last.Until.Sub(h.now()), time.Millisecond)
	}
	return composeCheck
}

// overran says that a compose has ended because its time was over.
func overran(log *slog.Logger, c Compose, p Published) {
	log.Warn("a compose is over its time: it was ended, and what it had gathered is announced", "module", c.Module, "began", c.Began, "until", c.Until,
		"who", c.Who, "note", c.Note, "serial", p.Serial, "records", p.Records)
}

// composeStatus is what status tells of composes: the one under way, or the last one if nobody ended it in time.
func (h *Hub) composeStatus(ctx context.Context, m event.Module) (*Compose, error) {
	c, err := h.publisher.Compose(ctx, m)
	if err != nil || !c.Open && c.Ended != journal.Overran {
		return nil, err
	}
	return &c, nil
}

// composing lets f begin or end a compose while no hub runs, and exports what that changes. One that is over its time is ended before.
func composing(ctx context.Context, conf *Config, m event.Module, log *slog.Logger, f func(*Publisher) error) error {
	return alone(ctx, conf, log, func(parts *Parts, p *Publisher) error {
		if err := endOverdue(ctx, p, m, log); err != nil {
			return err
		}
		if err := f(p); err != nil {
			return err
		}
		if err := parts.exports[m].exporter.Advance(ctx); err != nil {
			log.Error("export", "module", m, "error", err) // it is journalled; the hub exports it when it starts
		}
		return nil
	})
}

func endOverdue(ctx context.Context, p *Publisher, m event.Module, log *slog.Logger) error {
	last, done, ended, err := p.Overdue(ctx, m)
	if ended {
		overran(log, last, done)
	}
	return err
}

// BeginAlone begins a compose while no hub runs. Mirrors learn of it by the exported head.
func BeginAlone(ctx context.Context, conf *Config, r ComposeRequest, log *slog.Logger) (c Compose, err error) {
	err = composing(ctx, conf, r.Module, log, func(p *Publisher) (err error) {
		c, err = p.Begin(ctx, r)
		return err
	})
	return c, err
}

// EndAlone ends a compose while no hub runs. What it has gathered is announced durably, and relayed when one starts.
func EndAlone(ctx context.Context, conf *Config, m event.Module, how journal.Ending, log *slog.Logger) (done Published, err error) {
	err = composing(ctx, conf, m, log, func(p *Publisher) (err error) {
		done, err = p.End(ctx, m, how)
		return err
	})
	return done, err
}

// ComposeAlone tells of the compose of a module while no hub runs.
func ComposeAlone(ctx context.Context, conf *Config, m event.Module, log *slog.Logger) (c Compose, err error) {
	err = composing(ctx, conf, m, log, func(p *Publisher) (err error) {
		c, err = p.Compose(ctx, m)
		return err
	})
	return c, err
}
