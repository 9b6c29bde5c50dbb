package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source"
	"github.com/mirrorbus/mirrorbus/trigger/source/watch"
)

type watchOptions struct {
	backend   string
	untilIdle time.Duration
	status    bool
	sync      bool
	timeout   time.Duration
}

func (a *app) watchCommand() *cobra.Command {
	var o watchOptions
	c := &cobra.Command{
		Use:     "watch [MODULE…]",
		GroupID: "master",
		Short:   "watch the tree and announce what changes in it",
		Long: `Watches the trees of the modules, all of them if none is named, and has the hub announce what changes, as it happens. It stays in the foreground, logs to
standard error and ends on SIGTERM; deploy/ has a systemd unit. It needs a running hub, and waits for one.

By fanotify, with the capabilities CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, it starts at once whatever the size of the tree. Without, it watches each directory by
inotify. Where neither works, and on network file systems, it has the hub scan the tree again and again. The first log line says which it is, and why.

What happens while it does not run, or is lost, is found by a scan: at its start, and when the kernel could not keep up. [module.watch] of the
configuration says what is not announced, and how long changes are gathered.

With --status and --sync it asks the watcher that runs.`,
		Example: `  mirrorbus watch
  mirrorbus watch fedora --backend inotify -v
  mirrorbus watch fedora --until-idle=2s      (announce what differs, and end when nothing more happens)
  mirrorbus watch --status
  cp -a new/. /srv/fedora/ && mirrorbus watch --sync fedora && echo announced`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			modules, err := watchedModules(conf, args)
			if err != nil {
				return err
			}
			switch {
			case o.status:
				return a.watchStatus(c.Context(), conf, modules)
			case o.sync:
				return a.watchSync(c.Context(), conf, modules, o.timeout)
			}
			return a.watchTrees(c.Context(), conf, modules, o)
		},
	}
	c.Flags().StringVar(&o.backend, "backend", "", "what tells of changes: auto, fanotify, inotify or scan (default: that of the configuration)")
	c.Flags().DurationVar(&o.untilIdle, "until-idle", 0, "end when nothing has happened for so `LONG`")
	c.Flags().Lookup("until-idle").NoOptDefVal = "1s"
	c.Flags().BoolVar(&o.status, "status", false, "say how the modules are watched")
	c.Flags().BoolVar(&o.sync, "sync", false, "wait until everything that has happened in the modules is announced")
	c.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "with --sync: wait this `LONG` at most, then exit with 75")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (o watchOptions) check() error {
	said := 0
	for _, is := range []bool{o.status, o.sync, o.untilIdle != 0} {
		if is {
			said++
		}
	}
	switch {
	case said > 1:
		return usage(errors.New("--status, --sync and --until-idle exclude each other"), "")
	case o.untilIdle < 0:
		return usage(fmt.Errorf("--until-idle=%s: must be longer than nothing", o.untilIdle), `as in "--until-idle=2s"`)
	case !slices.Contains([]string{"", watch.Auto, watch.Fanotify, watch.Inotify, watch.Scanning}, o.backend):
		return usage(fmt.Errorf("--backend %.40q", o.backend), "it is auto, fanotify, inotify or scan")
	}
	return nil
}

// watchedModules are the modules that args name, or all.
func watchedModules(conf *trigger.Config, args []string) ([]trigger.ModuleConfig, error) {
	if len(args) == 0 {
		return conf.Modules, nil
	}
	var modules []trigger.ModuleConfig
	for i, name := range args {
		n := slices.IndexFunc(conf.Modules, func(m trigger.ModuleConfig) bool { return m.Name == name })
		if n < 0 {
			return nil, usage(fmt.Errorf("module %q is not one of this master's", name), "see mirrorbus status")
		}
		if !slices.Contains(args[:i], name) {
			modules = append(modules, conf.Modules[n])
		}
	}
	return modules, nil
}

// watchSocket is where the watcher answers: beside the hub.
func watchSocket(conf *trigger.Config) string {
	return strings.TrimSuffix(string(conf.Socket), ".sock") + "-watch.sock"
}

func (a *app) watchTrees(ctx context.Context, conf *trigger.Config, modules []trigger.ModuleConfig, o watchOptions) error {
	watchers := map[string]*watch.Watcher{}
	var parts []func(context.Context) error
	for _, m := range modules {
		w, err := a.watcher(conf, m, o)
		if err != nil {
			return err
		}
		watchers[m.Name] = w
		parts = append(parts, w.Run)
	}
	if o.untilIdle > 0 {
		g, ctx := errgroup.WithContext(ctx)
		for _, run := range parts {
			g.Go(func() error { return run(ctx) })
		}
		return g.Wait()
	}
	socket, err := control.Listen(watchSocket(conf))
	if err != nil {
		return err
	}
	parts = append(parts, func(ctx context.Context) error { return control.Serve(ctx, socket, watchHandler(watchers)) })
	return a.serve(ctx, parts...)
}

// watcher makes the watcher of a module.
func (a *app) watcher(conf *trigger.Config, m trigger.ModuleConfig, o watchOptions) (*watch.Watcher, error) {
	announced, err := m.Watch.Announced()
	if err != nil {
		return nil, err
	}
	index, err := m.IsIndex()
	if err != nil {
		return nil, err
	}
	options := watch.Options{
		Module: event.Module(m.Name), Root: string(m.Path), Export: string(m.Export), Own: m.ListPaths(), Backend: m.Watch.Backend, Rules: announced, Index: index,
		Timing:    watch.Timing{Quiet: m.Watch.Quiet.Duration, AtMost: m.Watch.AtMost.Duration, HotAfter: m.Watch.HotAfter, HotAtMost: m.Watch.HotAtMost.Duration},
		ScanEvery: m.Watch.ScanEvery.Duration, PollEvery: m.Watch.PollEvery.Duration, UntilIdle: o.untilIdle,
	}
	if o.backend != "" {
		options.Backend = o.backend
	}
	hub := source.Remote{Client: control.NewClient(string(conf.Socket))}
	return watch.New(options, watch.Through(hub, options.Module), a.log()), nil
}

// watchHandler answers on the watcher's control socket.
//
//	GET  /v1/status -> []watch.Status
//	POST /v1/sync   module -> nothing; waits
func watchHandler(watchers map[string]*watch.Watcher) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", control.Handle(func(context.Context, *http.Request, struct{}) ([]watch.Status, error) {
		all := []watch.Status{}
		for _, w := range watchers {
			all = append(all, w.Status())
		}
		slices.SortFunc(all, func(a, b watch.Status) int { return strings.Compare(string(a.Module), string(b.Module)) })
		return all, nil
	}))
	mux.HandleFunc("POST /v1/sync", control.Handle(func(ctx context.Context, _ *http.Request, module string) (struct{}, error) {
		w := watchers[module]
		if w == nil {
			return struct{}{}, fault.With(fmt.Errorf("module %q is not watched", module), fault.Usage, "see mirrorbus watch --status")
		}
		return struct{}{}, w.Sync(ctx)
	}))
	return mux
}
