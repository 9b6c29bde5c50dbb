package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
)

func isModule(name string) func(listener.ModuleStatus) bool {
	return func(m listener.ModuleStatus) bool { return string(m.Module) == name }
}

// printMirror writes a mirror's status for people: am I current, if not why, since when, what happens next.
func (a *app) printMirror(s daemon.Status) error {
	err := table(a.out, func(row func(...any)) {
		row("MODULE", a.colours("STATE"), "SINCE", "HAS", "HEAD", "VIA", "LAG", "NOW")
		for _, m := range s.Modules {
			lag := "-"
			if m.Lag > 0 {
				lag = short(time.Duration(m.Lag * float64(time.Second)))
			}
			row(m.Module, a.colours(string(m.State)), ago(s.At, m.Since), m.Applied, max(m.Head, m.Heard), cmp.Or(m.HeardVia, "-"), lag, doing(s.At, m))
		}
	})
	if err != nil {
		return err
	}
	for _, m := range s.Modules {
		if m.Running != nil && m.CatchUp != "" {
			fmt.Fprintf(a.out, "\n%s catches up %s\n", m.Module, m.CatchUp)
		}
		if m.Epoch != "" && m.Error == "" && (m.Look == listener.CannotTell || m.Look == listener.OldNews) {
			fmt.Fprintf(a.out, "\n%s: its upstream, looked at %s: %s: %s\n", m.Module, ago(s.At, m.LookedAt), m.Look, m.LookText)
		}
		if m.Error == "" {
			continue
		}
		fmt.Fprintf(a.out, "\n%s: %s\n", m.Module, m.Error)
		if m.Path != "" {
			fmt.Fprintf(a.out, "  path %s\n", m.Path)
		}
		if !m.Next.IsZero() {
			fmt.Fprintf(a.out, "  attempt %d in %s\n", m.Attempts+1, short(max(m.Next.Sub(s.At), 0)))
		}
	}
	return a.printLinks(s)
}

// doing says what happens at the moment, or next.
func doing(now time.Time, m listener.ModuleStatus) string {
	switch {
	case m.Running != nil:
		return running(now, *m.Running)
	case !m.Held.IsZero():
		return "held by a compose until " + m.Held.UTC().Format(time.RFC3339) + ", at the latest"
	case m.Pushes > m.PushesDone:
		return fmt.Sprintf("push %d waits", m.Pushes)
	case m.FlipsWait > 0:
		return plural(m.FlipsWait, "flip") + " waiting for the time"
	case !m.Next.IsZero():
		return "tries again in " + short(max(m.Next.Sub(now), 0))
	}
	return ""
}

// running says how far the work at hand is, how fast it goes, and when it may be done.
func running(now time.Time, r listener.Running) string {
	took := max(now.Sub(r.Since), time.Millisecond)
	s := fmt.Sprintf("%s up to %d: %s changes, %s, %s/s, for %s", r.Stage, r.Through, humanize.Comma(r.Items), humanize.IBytes(uint64(max(r.Bytes, 0))),
		humanize.IBytes(uint64(float64(max(r.Bytes, 0))/took.Seconds())), short(took))
	if left := r.Expect - r.Items; left > 0 && r.Items > 0 {
		s += fmt.Sprintf(", about %s left", short(time.Duration(float64(took)/float64(r.Items)*float64(left))))
	}
	return s
}

func (a *app) printLinks(s daemon.Status) error {
	for _, t := range s.Transports {
		fmt.Fprintf(a.out, "transport %s: %s", t.Name, a.colours(string(t.State)))
		if t.State != outlet.Degraded { // since when it is that is not noted
			fmt.Fprintf(a.out, " since %s", ago(s.At, t.Since))
		}
		if t.Waiting > 0 {
			fmt.Fprintf(a.out, ", %s to send", plural(t.Waiting, "report"))
		}
		if t.Reason != "" {
			fmt.Fprintf(a.out, ": %s", t.Reason)
		}
		if !t.NextTry.IsZero() {
			fmt.Fprintf(a.out, "; tries again in %s", short(max(t.NextTry.Sub(s.At), 0)))
		}
		fmt.Fprintln(a.out)
		for _, note := range t.Notes {
			fmt.Fprintf(a.out, "  %s\n", note)
		}
	}
	return nil
}
