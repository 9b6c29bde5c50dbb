package trigger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// Times of telling news: how often is looked, and how long is waited for mirrors before it is said how many have a serial.
const (
	newsEvery   = time.Second
	patientNews = time.Minute
)

// news is what was told, and is still to be told, of one module.
type news struct {
	module event.Module
	epoch  event.Epoch
	told   event.Serial

	open *journal.Stored // announced and not summed up yet
}

// Tell says what is announced, and for each announcement once how many mirrors have it: when all do that are not away, or after a while. It begins
// with what comes next, and leaves out modules that only some mirrors may have. Announcements that follow each other quickly are told and summed up together.
func (h *Hub) Tell(ctx context.Context, say func(module, text string) error) error {
	var all []*news
	for _, m := range h.conf.Modules {
		if !h.public(event.Module(m.Name)) {
			continue
		}
		st, err := h.journal.State(ctx, event.Module(m.Name))
		if err != nil {
			return err
		}
		all = append(all, &news{module: event.Module(m.Name), epoch: st.Epoch, told: st.Serial})
	}
	tick := time.NewTicker(newsEvery)
	defer tick.Stop()
	for {
		for _, n := range all {
			if err := h.tell(ctx, n, say); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (h *Hub) tell(ctx context.Context, n *news, say func(module, text string) error) error {
	st, err := h.journal.State(ctx, n.module)
	if err != nil {
		return err
	}
	if st.Epoch != n.epoch {
		n.epoch, n.told, n.open = st.Epoch, 0, nil
	}
	if st.Serial > n.told {
		a, err := h.journal.Get(ctx, n.module, st.Serial)
		if err != nil {
			return err
		}
		before := n.told
		n.told, n.open = st.Serial, &a
		if err := say(string(n.module), sentence(a, st.Serial-before)); err != nil {
			return err
		}
	}
	if n.open == nil {
		return nil
	}
	p, err := h.progress(ctx, *n.open)
	if err != nil {
		return err
	}
	if !p.enough(0) && h.now().Sub(n.open.Created) < patientNews {
		return nil
	}
	n.open = nil
	if len(p.Mirrors) == 0 {
		return nil
	}
	return say(string(n.module), summary(n.module, p))
}

// sentence is an announcement for people: what of the module changed, and how much. n is how many serials it stands for.
func sentence(a journal.Stored, n event.Serial) string {
	what := "changed"
	if a.Announcement.Kind == event.Flip {
		what = "made visible"
		if a.Announcement.NotBefore > 0 {
			what = "to be made visible at " + a.Announcement.At.Add(a.Announcement.NotBefore).Format(time.RFC3339)
		}
	}
	text := fmt.Sprintf("%s %d: ", a.Announcement.Module, a.Announcement.Serial)
	if n > 1 {
		text = fmt.Sprintf("%s %d, and %d before it: ", a.Announcement.Module, a.Announcement.Serial, n-1)
	}
	if a.Set == nil {
		return text + count(0)
	}
	text += count(a.Records) + " " + what
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	if err != nil {
		return text // what it names is for others to complain about
	}
	var names []string
	for _, r := range set[:min(len(set), 3)] {
		name := printable(r.Path)
		if r.Op == event.Gone {
			name = "-" + name
		}
		names = append(names, name)
	}
	text += ": " + strings.Join(names, ", ")
	if more := len(set) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// summary is how far an announcement has come, for people: how many mirrors have it, how quickly 95 of 100 had, and who does not.
func summary(m event.Module, p Progress) string {
	var took []time.Duration
	var slow, failed, away []string
	for _, one := range p.Mirrors {
		switch {
		case one.Has:
			took = append(took, one.Applied)
		case one.Outcome == event.Failed || one.Outcome == event.Blocked:
			failed = append(failed, one.Mirror)
		case one.Away:
			away = append(away, one.Mirror)
		default:
			slow = append(slow, one.Mirror)
		}
	}
	text := fmt.Sprintf("%s %d: %d of %d mirrors", m, p.Serial, p.Have, len(p.Mirrors))
	if len(took) > 0 {
		slices.Sort(took)
		text += fmt.Sprintf(", p95 %.1f s", took[(len(took)*95+99)/100-1].Seconds())
	}
	for _, group := range []struct {
		what  string
		names []string
	}{{"slow", slow}, {"failed", failed}, {string(collector.Away), away}} {
		if len(group.names) > 0 {
			text += fmt.Sprintf(", %s: %s", group.what, few(group.names))
		}
	}
	return text
}
