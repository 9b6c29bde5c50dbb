package replay_test

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
)

// A follower reads what is added to a file, line by line.
type follower struct {
	file string
	at   int64
	part string // a line that had no end yet
}

func (f *follower) more() ([]string, error) {
	file, err := os.Open(f.file)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.NewSectionReader(file, f.at, 1<<40))
	f.at += int64(len(text))
	lines := strings.Split(f.part+string(text), "\n")
	f.part = lines[len(lines)-1]
	return lines[:len(lines)-1], err
}

// A hearing is that an agent was told something.
type hearing struct {
	serial event.Serial // 0: the line is about something else
	bus    string
	first  bool // nobody had told it before
	head   bool // not an announcement, but how many there are
}

// heardIn reads a line of an agent's log.
func heardIn(line string) hearing {
	msg := word(line, "msg")
	if msg != "heard" && msg != "ignored" {
		return hearing{}
	}
	return hearing{serial: event.Serial(max(serialIn(line), 0)), bus: word(line, "transport"), first: msg == "heard", head: word(line, "kind") == string(event.HeadIs)}
}

// A tally is what an agent has logged.
type tally struct {
	brought map[string]map[event.Serial]bool // announcements by the transports that brought them, first or not
	first   map[event.Serial]string          // by which one each came first
	faults  []string
	applied event.Serial
}

func readTally(text string) tally {
	t := tally{brought: map[string]map[event.Serial]bool{}, first: map[event.Serial]string{}}
	last := int64(-1) // the first comparison is of serial 0
	for line := range strings.Lines(text) {
		if h := heardIn(line); h.serial > 0 && !h.head {
			if t.brought[h.bus] == nil {
				t.brought[h.bus] = map[event.Serial]bool{}
			}
			t.brought[h.bus][h.serial] = true
			if by, again := t.first[h.serial]; h.first && again {
				t.faults = append(t.faults, fmt.Sprintf("serial %d came first by %s and by %s", h.serial, by, h.bus))
			}
			if h.first {
				t.first[h.serial] = h.bus
			}
		}
		if word(line, "msg") != "applied" {
			continue
		}
		n := serialIn(line)
		if n <= last {
			t.faults = append(t.faults, fmt.Sprintf("applied serial %d after %d: %s", n, last, line))
		}
		last = n
	}
	t.applied = event.Serial(max(last, 0))
	return t
}

// What a log tells is what happened, and what must not happen is seen.
func TestLogsAreReadRight(t *testing.T) {
	heard := func(msg string, serial int, bus, kind string) string {
		return fmt.Sprintf("time=2026-11-22T00:00:00Z level=INFO msg=%s module=day serial=%d transport=%s kind=%s\n", msg, serial, bus, kind)
	}
	applied := func(serial int) string {
		return fmt.Sprintf("time=2026-11-22T00:00:00Z level=INFO msg=applied module=day serial=%d outcome=applied\n", serial)
	}
	good := heard("heard", 1, "hub", "change") + heard("ignored", 1, "amqp", "change") + applied(1) + heard("heard", 2, "amqp", "flip") + heard("ignored", 2, "amqp", "flip") +
		heard("heard", 3, "hub", "head") + applied(2)
	w := &world{said: []announced{{serial: 1}, {serial: 2}, {serial: 3}, {serial: 4}}, whole: 4}
	for name, c := range map[string]struct {
		log    string
		faults int
		lost   []event.Serial // by amqp
	}{
		"good, but for a head that is no announcement": {good, 0, []event.Serial{3}},
		"nothing lost":           {good + heard("heard", 3, "amqp", "change"), 0, nil},
		"applied twice":          {good + applied(2), 1, []event.Serial{3}},
		"applied the one before": {good + applied(1), 1, []event.Serial{3}},
		"first by two":           {good + heard("heard", 2, "hub", "flip"), 1, []event.Serial{3}},
	} {
		got := readTally(c.log)
		if lost := w.lost(got.brought["amqp"]); len(got.faults) != c.faults || !slices.Equal(lost, c.lost) || got.first[1] != "hub" || len(got.brought["hub"]) == 0 {
			t.Errorf("%s: %+v, lost %v, want %d faults and %v lost", name, got, lost, c.faults, c.lost)
		}
	}
}

// checkLogs looks at what the agents have logged: each transport that one hears by has brought announcements, and nothing else has; AMQP, which keeps them, every one, each came first by one of
// them, and no serial was applied twice.
func (w *world) checkLogs() {
	w.t.Helper()
	for _, m := range w.mirrors {
		text, err := os.ReadFile(w.log("agent-" + m.name))
		if err != nil {
			w.t.Error(err)
			continue
		}
		t := readTally(string(text))
		for _, f := range t.faults {
			w.t.Errorf("%s: %s", m.name, f)
		}
		counts, firsts, buses := map[string]int{}, map[string]int{}, w.buses
		if m.hears != nil {
			buses = m.hears
		}
		for bus, brought := range t.brought {
			if !slices.Contains(buses, bus) {
				w.t.Errorf("%s has heard of %d changes by %s, which is none of %v", m.name, len(brought), bus, buses)
			}
		}
		for _, bus := range buses {
			counts[bus] = len(t.brought[bus])
			if counts[bus] == 0 || t.applied < 1 {
				w.t.Errorf("%s has heard of %d changes by %s and applied up to serial %d", m.name, counts[bus], bus, t.applied)
			}
		}
		for by := range maps.Values(t.first) {
			firsts[by]++
		}
		if lost := w.lost(t.brought["amqp"]); slices.Contains(w.buses, "amqp") && len(lost) > 0 {
			w.t.Errorf("%s: amqp has not brought serials %v", m.name, lost)
		}
		w.t.Logf("%s: announcements brought by %v, of them first by %v", m.name, counts, firsts)
	}
}

// lost are the serials that were announced before the servers all ran again and are not in a set. Those after them may have been on their way at the end.
func (w *world) lost(came map[event.Serial]bool) (all []event.Serial) {
	for _, a := range w.said {
		if a.serial < w.whole && !came[a.serial] {
			all = append(all, a.serial)
		}
	}
	return all
}

// serialIn is the serial that a line of a log is about, -1 if it names none.
func serialIn(line string) int64 {
	n, err := strconv.ParseInt(word(line, "serial"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// word is what a line of a log says of key.
func word(line, key string) string {
	_, rest, _ := strings.Cut(line, " "+key+"=")
	value, _, _ := strings.Cut(rest, " ")
	return strings.TrimSpace(value)
}
