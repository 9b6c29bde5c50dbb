package trigger

import (
	"fmt"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

// A WatchConfig is the [module.watch] of a module: how mirrorbus watch watches its tree.
type WatchConfig struct {
	Backend   string          `toml:"backend"`     // auto, fanotify, inotify or scan
	Filter    []string        `toml:"filter"`      // what is not announced, as rsync's filter rules
	Rules     []string        `toml:"rules"`       // likewise, as expressions: see package rules
	Quiet     config.Duration `toml:"quiet"`       // changes are announced when nothing has happened for so long
	AtMost    config.Duration `toml:"at_most"`     // but so long after the first at the latest
	HotAfter  int             `toml:"hot_after"`   // a file announced so often, one time soon after the other, is held back
	HotAtMost config.Duration `toml:"hot_at_most"` // but not for longer; nor is one that is being written
	ScanEvery config.Duration `toml:"scan_every"`  // what no event tells of is found then
	PollEvery config.Duration `toml:"poll_every"`  // likewise where nothing tells of events
}

// watchBackends are the values of backend.
var watchBackends = []string{"auto", "fanotify", "inotify", "scan"}

func (w *WatchConfig) fillDefaults() {
	setDefault(&w.Backend, "auto")
	setDefault(&w.Quiet.Duration, 150*time.Millisecond)
	setDefault(&w.AtMost.Duration, 5*time.Second)
	setDefault(&w.HotAfter, 5)
	setDefault(&w.HotAtMost.Duration, time.Minute)
	setDefault(&w.ScanEvery.Duration, 24*time.Hour)
	setDefault(&w.PollEvery.Duration, time.Minute)
}

// Validate checks what the types cannot.
func (w *WatchConfig) Validate() error {
	if w.Backend != "" && !slices.Contains(watchBackends, w.Backend) {
		return config.Fault("backend", fmt.Sprintf("is %.40q", w.Backend), "write auto, fanotify, inotify or scan")
	}
	if w.HotAfter < 0 {
		return config.Fault("hot_after", fmt.Sprintf("is %d", w.HotAfter), "write a number from 1, or leave it out")
	}
	if w.AtMost.Duration > 0 && w.AtMost.Duration < w.Quiet.Duration {
		return config.Fault("at_most", "is less than quiet", "then nothing is ever quiet for long enough; give it some times as much")
	}
	f, err := filter.Parse(w.Filter)
	if err != nil {
		return config.Fault("filter", err.Error(), `write rules as rsync takes them, as in "- *.tmp"`)
	}
	if _, err := rules.New(f, w.Rules); err != nil {
		return config.Fault("rules", err.Error(), `write + or -, the kind (f, d, w or *) and an expression, as in '-f\.tmp$'`)
	}
	return nil
}

// Announced are the rules that say which names are announced.
func (w *WatchConfig) Announced() (*rules.Rules, error) {
	f, err := filter.Parse(w.Filter)
	if err != nil {
		return nil, err
	}
	return rules.New(f, w.Rules)
}
