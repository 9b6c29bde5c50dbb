package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source/watch"
)

// askWatcher asks the watcher that runs.
func askWatcher(ctx context.Context, conf *trigger.Config, method, path string, in, out any) error {
	err := control.NewClient(watchSocket(conf)).Do(ctx, method, path, in, out)
	if control.IsDown(err) {
		return fault.With(fmt.Errorf("no watcher runs: %w", err), fault.Unavailable, "start mirrorbus watch")
	}
	return err
}

// watchStatus shows how the modules are watched.
func (a *app) watchStatus(ctx context.Context, conf *trigger.Config, modules []trigger.ModuleConfig) error {
	var all []watch.Status
	if err := askWatcher(ctx, conf, http.MethodGet, "/v1/status", nil, &all); err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s watch.Status) bool {
		return !slices.ContainsFunc(modules, func(m trigger.ModuleConfig) bool { return m.Name == string(s.Module) })
	})
	if a.json {
		return a.printJSON(all)
	}
	for _, s := range all {
		a.printWatched(s, time.Now())
	}
	return nil
}

func (a *app) printWatched(s watch.Status, now time.Time) {
	fmt.Fprintf(a.out, "%s  %s %s\n", s.Module, a.colours(string(s.State)), s.Path)
	if s.Backend != "" {
		fmt.Fprintf(a.out, "  by %s: %s\n", s.Backend, s.Reason)
	}
	waiting := "nothing waits"
	if s.Waiting > 0 {
		waiting = fmt.Sprintf("%s waiting, %d held back; the oldest, %s, since %s", plural(s.Waiting, "name"), s.Held, quoteOdd(s.Oldest), ago(now, s.OldestAt))
	}
	if s.Sending > 0 {
		waiting += fmt.Sprintf("; the hub is asked about %d", s.Sending)
	}
	if s.Queued > 0 {
		waiting += fmt.Sprintf("; %s of events not read yet", plural(s.Queued, "byte"))
	}
	fmt.Fprintf(a.out, "  %s\n", waiting)
	if !s.Announced.IsZero() {
		fmt.Fprintf(a.out, "  announced %s, serial %d\n", ago(now, s.Announced), s.Serial)
	}
	scan := "scanned " + ago(now, s.Scanned)
	if s.ScanReason != "" {
		scan += " (" + s.ScanReason + ")"
	}
	if s.Scanning {
		scan += "; a scan is under way"
	}
	fmt.Fprintf(a.out, "  %s; events lost %s", scan, plural(s.Lost, "time"))
	if s.Lost > 0 {
		fmt.Fprintf(a.out, ", the last %s", ago(now, s.LostAt))
	}
	fmt.Fprintln(a.out)
	if s.Trouble != "" {
		fmt.Fprintf(a.out, "  trouble: %s\n", s.Trouble)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(a.out, "  %s\n", n)
	}
}

// quoteOdd quotes a name that would break the line.
func quoteOdd(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// watchSync waits until what has happened is announced, and prints at which serial that is.
func (a *app) watchSync(ctx context.Context, conf *trigger.Config, modules []trigger.ModuleConfig, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, m := range modules {
		if err := askWatcher(bounded, conf, http.MethodPost, "/v1/sync", m.Name, nil); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fault.With(fmt.Errorf("not everything in %s is announced after %s", m.Name, timeout), fault.TryAgain, "see mirrorbus watch --status")
			}
			return err
		}
		var entries []trigger.LogEntry
		q := url.Values{"module": {m.Name}, "n": {"1"}}
		if err := control.NewClient(string(conf.Socket)).Do(ctx, http.MethodGet, "/v1/log?"+q.Encode(), nil, &entries); err != nil {
			return err
		}
		if err := a.printSynced(m.Name, entries); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printSynced(module string, entries []trigger.LogEntry) error {
	switch {
	case a.json:
		return a.printJSON(entries)
	case len(entries) == 0:
		_, err := fmt.Fprintf(a.out, "%s: nothing is announced, and nothing waits\n", module)
		return err
	}
	_, err := fmt.Fprintf(a.out, "%s %d: everything is announced\n", module, entries[0].Serial)
	return err
}
