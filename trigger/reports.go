package trigger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// reports receives the reports of one transport. What cannot count is logged, a few times a minute at most, and never delivered again.
type reports struct {
	gate      event.Gate
	allowed   func(peer string, t transports.Topic, subscribe bool) error
	collector *collector.Collector
	now       func() time.Time
	log       *slog.Logger

	mu      sync.Mutex
	refused int64
	quiet   *rate.Limiter
}

// Connected implements transports.Receiver.
func (r *reports) Connected() {}

// Receive implements transports.Receiver. Only a report that could not be stored is asked for again.
func (r *reports) Receive(ctx context.Context, m transports.Message) error {
	report, err := r.open(m)
	if err != nil {
		r.refuse(m, err)
		return nil
	}
	failpoint.Here("collect.verified")
	if err = r.collector.Put(ctx, report, r.now()); err == nil {
		failpoint.Here("collect.stored")
	}
	return err
}

func (r *reports) open(m transports.Message) (event.Report, error) {
	line, _, err := envelope.Decode(m.Body)
	if err != nil {
		return event.Report{}, err
	}
	s, err := r.gate.Open(line, r.now())
	switch {
	case err != nil:
		return event.Report{}, err
	case s.Report == nil:
		return event.Report{}, fmt.Errorf("a %s where reports are expected", s.Kind)
	case string(s.Report.Module) != m.Topic.Module:
		return event.Report{}, fmt.Errorf("report on %s came on topic %s", s.Report.Module, m.Topic)
	case m.From != "" && m.From != s.Report.Mirror:
		return event.Report{}, errors.New("report of " + s.Report.Mirror + " was brought by another peer")
	}
	return *s.Report, r.allowed(s.Report.Mirror, m.Topic, false) // not every transport knows who publishes
}

func (r *reports) refuse(m transports.Message, err error) {
	r.mu.Lock()
	r.refused++
	n, say := r.refused, r.quiet.Allow()
	r.mu.Unlock()
	if say {
		r.log.Warn("report refused", "topic", m.Topic.String(), "from", m.From, "error", err, "refused_in_all", n)
	}
}
