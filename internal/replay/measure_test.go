package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const measured = "measured" // a folder of the tree for what is measured

// A measurement is a kind of change that is timed.
type measurement struct {
	what    string
	names   []string
	options []string
	do      func(round int) error
}

// measure compares how long small changes take to be applied everywhere with one full rsync of the same change into a copy, medians of five.
func (w *world) measure(ctx context.Context, crowd int) error {
	if err := errors.Join(os.MkdirAll(filepath.Join(w.tree, measured), 0o755), w.write(crowd, -1)); err != nil {
		return err
	}
	if _, err := w.timed(ctx, []string{"r:" + measured}); err != nil {
		return err
	}
	if _, err := w.full(ctx); err != nil {
		return err
	}
	var table strings.Builder
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "change\t")
	for _, m := range w.mirrors {
		fmt.Fprintf(t, "%s\t", m.name)
	}
	fmt.Fprintln(t, "full rsync\t")
	for _, m := range []measurement{
		{"1 file", list(1), nil, func(round int) error { return w.write(1, round) }},
		{"100 files", list(100), nil, func(round int) error { return w.write(100, round) }},
		{fmt.Sprintf("flip of a directory of %d", crowd), []string{measured}, []string{"--flip"}, func(round int) error {
			return os.Chmod(filepath.Join(w.tree, measured), os.FileMode([]int{0o750, 0o755}[round%2]))
		}},
	} {
		medians, err := w.medians(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		fmt.Fprintf(t, "%s\t", m.what)
		for _, d := range medians {
			fmt.Fprintf(t, "%d ms\t", d.Milliseconds())
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	w.t.Logf("announced to applied, and a full rsync -aH --delete of the same, medians of 5:\n%s", &table)
	return nil
}

// medians are how long each mirror took, and a full rsync.
func (w *world) medians(ctx context.Context, m measurement) ([]time.Duration, error) {
	took := make([][]time.Duration, len(w.mirrors)+1)
	for round := range 5 {
		if err := m.do(round); err != nil {
			return nil, err
		}
		each, err := w.timed(ctx, m.names, m.options...)
		if err != nil {
			return nil, err
		}
		whole, err := w.full(ctx)
		if err != nil {
			return nil, err
		}
		for i, d := range append(each, whole) {
			took[i] = append(took[i], d)
		}
	}
	medians := make([]time.Duration, len(took))
	for i, d := range took {
		slices.Sort(d)
		medians[i] = d[len(d)/2]
	}
	return medians, nil
}

// full brings a copy up to date as a cron job would, and returns how long that took.
func (w *world) full(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	_, err := w.run(ctx, "", "rsync", "-aH", "--delete", "--exclude=/.mirrorbus/", w.rsyncd.URL(module)+"/", filepath.Join(w.dir, "cron")+"/")
	return time.Since(start), err
}

// write writes the first n files of the measured folder anew.
func (w *world) write(n, round int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(w.tree, measured, fmt.Sprint(i)), fmt.Appendf(nil, "%d in round %d\n", i, round), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func list(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(measured, "/", i)
	}
	return names
}

// timed announces names and returns how long each mirror took to apply them.
func (w *world) timed(ctx context.Context, names []string, options ...string) ([]time.Duration, error) {
	if err := w.announce(ctx, "measure", names, options...); err != nil {
		return nil, err
	}
	p, err := w.wait(ctx, 2*time.Minute)
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, len(w.mirrors))
	for i, m := range w.mirrors {
		for _, at := range p.Mirrors {
			if at.Mirror == m.name {
				took[i] = at.Applied
			}
		}
	}
	return took, nil
}

// wait waits until every mirror has all that was announced.
func (w *world) wait(ctx context.Context, bound time.Duration) (trigger.Progress, error) {
	var p trigger.Progress
	out, err := w.run(ctx, "", w.program, "wait", "-c", w.config(), "--json", "--count", "all", "--timeout", bound.String(), module)
	if err != nil {
		return p, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &p); err != nil {
		return p, err
	}
	if len(p.Mirrors) != len(w.mirrors) {
		err = fmt.Errorf("wait knows %d mirrors of %d", len(p.Mirrors), len(w.mirrors))
	}
	return p, err
}

// current waits until the hub says that every mirror is current.
func (w *world) current(ctx context.Context, bound time.Duration) error {
	return until(ctx, bound, func() error {
		var s trigger.Status
		err := control.NewClient(w.socket()).Do(ctx, "GET", "/v1/status", nil, &s)
		if err == nil && !isCurrent(s, len(w.mirrors)) {
			err = fmt.Errorf("not all are current: %+v", s.Modules)
		}
		return err
	})
}

func isCurrent(s trigger.Status, mirrors int) bool {
	if len(s.Modules) != 1 || len(s.Modules[0].Mirrors) != mirrors || s.Modules[0].Entries == 0 {
		return false
	}
	for _, m := range s.Modules[0].Mirrors {
		if m.State != trigger.Current {
			return false
		}
	}
	return true
}
