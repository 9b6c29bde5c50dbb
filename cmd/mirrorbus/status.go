package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:     "status [MODULE]",
		GroupID: "both",
		Short:   "say where everything stands",
		Long: `On a master: each module and mirror, what it has, what it lacks, why, and what happens next. On a mirror: each of its modules.
VIA is the transport by which the newest announcement came first, whatever others brought it again; "journal" if the mirror read it at its upstream.
In JSON that is "via" of a mirror on the master, "heard_via" of a module on a mirror.
The words are explained by: mirrorbus help states`,
		Example: "  mirrorbus status\n  mirrorbus status fedora --watch\n  mirrorbus status --json\n  mirrorbus status --metrics > /var/lib/prometheus/node-exporter/mirrorbus.prom",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if a.metrics && (a.json || watch) {
				return usage(errors.New("--metrics goes with neither --json nor --watch"), "see mirrorbus status --help")
			}
			role, err := a.role()
			if err != nil {
				return err
			}
			module := ""
			if len(args) == 1 {
				module = args[0]
			}
			show := func(ctx context.Context) error { return a.masterStatus(ctx, module) }
			if role == transports.Mirror {
				show = func(ctx context.Context) error { return a.mirrorStatus(ctx, module) }
			}
			if !watch {
				return show(c.Context())
			}
			return a.watch(c.Context(), show)
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second; with --json a line each")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	c.Flags().BoolVar(&a.metrics, "metrics", false, "print numbers in the text format of Prometheus, as for node_exporter's textfile collector")
	return c
}

// watch shows again and again until ctx ends.
func (a *app) watch(ctx context.Context, show func(context.Context) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if isTerminal(a.out) && !a.json {
			fmt.Fprint(a.out, "\x1b[H\x1b[2J")
		}
		if err := show(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) masterStatus(ctx context.Context, module string) error {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	var s trigger.Status
	client := control.NewClient(string(conf.Socket))
	err = orAlone(string(conf.Socket), func() error { return client.Do(ctx, "GET", "/v1/status", nil, &s) }, func() (err error) {
		s, err = trigger.StatusAlone(ctx, conf, a.log())
		return err
	})
	if err != nil {
		return err
	}
	if module != "" {
		if s.Modules, err = only(s.Modules, func(m trigger.ModuleStatus) bool { return string(m.Module) == module }, module); err != nil {
			return err
		}
	}
	switch {
	case a.json:
		return a.printJSON(s)
	case a.metrics:
		return a.printMasterMetrics(s)
	case !s.Running:
		fmt.Fprintln(a.out, "The hub does not run: nothing is relayed until mirrorbus hub starts.")
	}
	for _, m := range s.Modules {
		if err := a.printModule(s, m); err != nil {
			return err
		}
	}
	return a.printTransports(s)
}

func only[T any](all []T, is func(T) bool, name string) ([]T, error) {
	for _, v := range all {
		if is(v) {
			return []T{v}, nil
		}
	}
	return nil, usage(fmt.Errorf("module %q is not configured here", name), "see mirrorbus status")
}

func (a *app) printModule(s trigger.Status, m trigger.ModuleStatus) error {
	fmt.Fprintf(a.out, "%s  serial %d, announced %s; %s in the manifest\n", m.Module, m.Serial, ago(s.Now, m.At), plural(int(m.Entries), "name"))
	if m.Building != "" {
		fmt.Fprintf(a.out, "  building the manifest: %s\n", m.Building)
	}
	if m.Scanning != "" {
		fmt.Fprintf(a.out, "  scanning: %s\n", m.Scanning)
	}
	if m.Scan != nil {
		fmt.Fprintf(a.out, "  scanned %s: %s\n", ago(s.Now, m.Scan.At), m.Scan)
	}
	if m.Compose != nil {
		fmt.Fprintf(a.out, "  %s\n", composeSentence(*m.Compose))
	}
	if len(m.Mirrors) == 0 {
		_, err := fmt.Fprintln(a.out, "  no mirror has reported yet; one joins with mirrorbus init mirror")
		return err
	}
	return table(a.out, func(row func(...any)) {
		row("  MIRROR", a.colours("STATE"), "HAS", "BEHIND", "FOR", "HEARD", "VIA", "LAST ERROR")
		for _, r := range m.Mirrors {
			behind, since := "-", "-"
			if r.Behind > 0 {
				behind, since = fmt.Sprint(r.Behind), short(r.Lag)
			}
			row("  "+r.Mirror, a.colours(string(r.State)), r.Applied, behind, since, ago(s.Now, r.Heard), cmp.Or(r.Via, "-"), r.Error)
		}
	})
}

func (a *app) printTransports(s trigger.Status) error {
	return table(a.out, func(row func(...any)) {
		for _, t := range s.Transports {
			row("transport "+t.Name, a.colours(string(t.State)), plural(t.Peers, "peer"), plural(t.Waiting, "message")+" waiting", t.Reason)
			for _, note := range t.Notes {
				if note != t.Reason {
					row("  " + note)
				}
			}
		}
	})
}
