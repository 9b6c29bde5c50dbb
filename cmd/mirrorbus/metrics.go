package main

import (
	"maps"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/metrics"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// printMasterMetrics writes a master's status as numbers.
func (a *app) printMasterMetrics(s trigger.Status) error {
	var p metrics.Page
	p.Gauge("mirrorbus_up", "Whether the daemon runs.", number(s.Running), "role", "master", "name", s.Name)
	for _, m := range s.Modules {
		module := string(m.Module)
		p.Gauge("mirrorbus_module_serial", "The newest serial.", float64(m.Serial), "module", module)
		p.Gauge("mirrorbus_module_announced_seconds", "When that was announced, in seconds since 1970; 0 if nothing was.", seconds(m.At), "module", module)
		for _, one := range m.Mirrors {
			p.Gauge("mirrorbus_mirror_state", "1 for the state that the mirror is in.", 1, "module", module, "mirror", one.Mirror, "state", string(one.State))
			p.Gauge("mirrorbus_mirror_serial", "The serial that the mirror has said to have.", float64(one.Applied), "module", module, "mirror", one.Mirror)
			p.Gauge("mirrorbus_mirror_behind", "How many serials the mirror lacks.", float64(one.Behind), "module", module, "mirror", one.Mirror)
			p.Gauge("mirrorbus_mirror_lag_seconds", "The age of the oldest serial that the mirror lacks; 0 if it lacks none.", one.Lag.Seconds(), "module", module, "mirror", one.Mirror)
			p.Gauge("mirrorbus_mirror_heard_seconds", "When the mirror was last heard of, in seconds since 1970.", seconds(one.Heard), "module", module, "mirror", one.Mirror)
		}
	}
	addTransports(&p, s.Transports)
	_, err := p.WriteTo(a.out)
	return err
}

// printMirrorMetrics writes a mirror's status as numbers.
func (a *app) printMirrorMetrics(s daemon.Status) error {
	var p metrics.Page
	p.Gauge("mirrorbus_up", "Whether the daemon runs.", number(s.Running), "role", "mirror", "name", s.Mirror)
	for _, m := range s.Modules {
		module := string(m.Module)
		for _, state := range listener.States() {
			p.Gauge("mirrorbus_module_state", "1 for the state that the module is in, 0 for the others.", number(state == m.State), "module", module, "state", string(state))
		}
		p.Gauge("mirrorbus_module_applied", "The serial that is on disk.", float64(m.Applied), "module", module)
		p.Gauge("mirrorbus_module_serial", "The newest serial that was heard of.", float64(max(m.Head, m.Heard)), "module", module)
		p.Gauge("mirrorbus_module_lag_seconds", "The age of the oldest announcement that is not applied; 0 if there is none.", m.Lag, "module", module)
		p.Gauge("mirrorbus_module_attempts", "How often in a row it has failed.", float64(m.Attempts), "module", module)
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Refused)) {
		p.Counter("mirrorbus_refused_total", "Messages that were refused, by reason.", s.Refused[reason], "reason", reason)
	}
	addTransports(&p, s.Transports)
	_, err := p.WriteTo(a.out)
	return err
}

func addTransports(p *metrics.Page, all []outlet.Status) {
	for _, t := range all {
		p.Gauge("mirrorbus_transport_connected", "Whether the transport is connected.", number(t.Connected), "transport", t.Name)
		p.Gauge("mirrorbus_transport_waiting", "Messages that wait to be sent.", float64(t.Waiting), "transport", t.Name)
		p.Gauge("mirrorbus_transport_peers", "Peers that are connected, where the transport knows.", float64(t.Peers), "transport", t.Name)
		p.Gauge("mirrorbus_transport_notes", "How many lines status says of what is wrong with single peers.", float64(len(t.Notes)), "transport", t.Name)
		for _, event := range slices.Sorted(maps.Keys(t.Counters)) {
			p.Counter("mirrorbus_transport_events_total", "What the transport has counted since the daemon was started.", t.Counters[event], "transport", t.Name, "event", event)
		}
	}
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus has them.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
