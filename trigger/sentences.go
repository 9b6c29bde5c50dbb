package trigger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/transports"
)

// sees tells whether who asks may hear of a module.
func (h *Hub) sees(a asked, m event.Module) bool { return a.inner || h.public(m) }

// public tells whether everybody may hear of a module.
func (h *Hub) public(m event.Module) bool {
	return h.allowed("", transports.Topic{Kind: transports.Announce, Module: string(m)}, true) == nil
}

// visible is the status of the modules that who asks may hear of.
func (h *Hub) visible(ctx context.Context, a asked) (Status, error) {
	s, err := h.Status(ctx)
	s.Modules = slices.DeleteFunc(s.Modules, func(m ModuleStatus) bool { return !h.sees(a, m.Module) })
	return s, err
}

// sentence is a module for people: which mirrors are not current, and how many are.
func (m ModuleStatus) sentence(now time.Time) string {
	if m.Serial == 0 {
		return fmt.Sprintf("%s: nothing is announced yet", m.Module)
	}
	others := map[MirrorState][]string{}
	current := 0
	for _, one := range m.Mirrors {
		if one.State == Current {
			current++
			continue
		}
		others[one.State] = append(others[one.State], one.Mirror)
	}
	text := fmt.Sprintf("%s %d, announced %s ago: %d of %d mirrors current", m.Module, m.Serial, age(now.Sub(m.At)), current, len(m.Mirrors))
	for _, state := range []MirrorState{Failing, Stuck, Diverged, Behind, Away} {
		if names := others[state]; len(names) > 0 {
			text += fmt.Sprintf("; %s: %s", state, few(names))
		}
	}
	if m.Compose != nil && m.Compose.Open {
		text += fmt.Sprintf("; a compose is under way for %s", age(now.Sub(m.Compose.Began)))
	}
	return text
}

func (m MirrorStatus) sentence(module event.Module, now time.Time) string {
	text := fmt.Sprintf("%s %s: %s, has %d", m.Mirror, module, m.State, m.Applied)
	if m.Behind > 0 {
		text += fmt.Sprintf(", %d behind for %s", m.Behind, age(m.Lag))
	}
	text += fmt.Sprintf(", heard %s ago", age(now.Sub(m.Heard)))
	if m.Error != "" {
		text += ": " + m.Error
	}
	return text
}

// age is a span for people.
func age(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// few is a list of names of which not all are told if there are many.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// count is a number of paths for people; -1 is no path set.
func count(records int) string {
	switch records {
	case -1, 0:
		return "anything may have changed"
	case 1:
		return "1 path"
	}
	return fmt.Sprintf("%d paths", records)
}
