package trigger

import (
	"context"
	"errors"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// Status says where everything stands.
func (h *Hub) Status(ctx context.Context) (Status, error) {
	s := Status{Schema: Schema, Name: h.conf.Name, Now: h.now(), Running: true}
	for _, m := range h.conf.Modules {
		ms, err := h.moduleStatus(ctx, event.Module(m.Name))
		if err != nil {
			return Status{}, err
		}
		s.Modules = append(s.Modules, ms)
	}
	var err error
	s.Transports, err = h.outlets.Status(ctx)
	return s, err
}

func (h *Hub) moduleStatus(ctx context.Context, m event.Module) (ModuleStatus, error) {
	standings, t, err := h.stand(ctx, m)
	if err != nil {
		return ModuleStatus{}, err
	}
	s := ModuleStatus{Module: m, Epoch: t.Epoch, Serial: t.Serial, At: t.At, Mirrors: []MirrorStatus{}}
	if err = h.manifestStatus(ctx, &s); err != nil {
		return ModuleStatus{}, err
	}
	if s.Compose, err = h.composeStatus(ctx, m); err != nil {
		return ModuleStatus{}, err
	}
	words, err := h.collector.Words(ctx, m, t.Epoch, t.Serial)
	if err != nil {
		return ModuleStatus{}, err
	}
	via := map[string]string{}
	for _, w := range words {
		via[w.Mirror] = w.Via
	}
	for _, standing := range standings {
		ms := MirrorStatus{Via: via[standing.Mirror], Standing: standing, State: collector.Judge(t, standing, h.now(), h.conf.AwayAfter.Duration)}
		if standing.Applied < t.Serial && (standing.Epoch == t.Epoch || standing.Applied == 0) {
			ms.Behind = t.Serial - standing.Applied
			if ms.Lag, err = h.age(ctx, m, standing.Applied+1); err != nil {
				return ModuleStatus{}, err
			}
		}
		if ms.State == Current {
			ms.Error = ""
		}
		s.Mirrors = append(s.Mirrors, ms)
	}
	return s, nil
}

// age is how long ago a serial was announced; of one that is no longer in the journal, at least as long as the oldest that is.
func (h *Hub) age(ctx context.Context, m event.Module, serial event.Serial) (time.Duration, error) {
	a, err := h.journal.Get(ctx, m, serial)
	if errors.Is(err, journal.ErrTrimmed) {
		st, err := h.journal.State(ctx, m)
		if err != nil {
			return 0, err
		}
		if a, err = h.journal.Get(ctx, m, st.Floor); err != nil {
			return 0, err
		}
	}
	if errors.Is(err, journal.ErrUnknownSerial) { // a new epoch began a moment ago
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return h.now().Sub(a.Created).Round(time.Millisecond), nil
}

// stand reads where the mirrors of a module stand, and then where it stands itself: the other way round a mirror that is quick would be ahead
// of its master.
func (h *Hub) stand(ctx context.Context, m event.Module) ([]collector.Standing, collector.Tip, error) {
	standings, err := h.collector.Standings(ctx, m)
	if err != nil {
		return nil, collector.Tip{}, err
	}
	t, err := h.tip(ctx, m)
	return standings, t, err
}

// tip is the module's newest announcement.
func (h *Hub) tip(ctx context.Context, m event.Module) (collector.Tip, error) {
	st, err := h.journal.State(ctx, m)
	if err != nil {
		return collector.Tip{}, err
	}
	t := collector.Tip{Epoch: st.Epoch, Serial: st.Serial, Digest: st.Last}
	if t.Serial > 0 {
		a, err := h.journal.Latest(ctx, m)
		if err != nil {
			return collector.Tip{}, err
		}
		t.At = a.Created
	}
	return t, nil
}
