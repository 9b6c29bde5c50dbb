package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/transports"
)

func (a *app) pollCommand() *cobra.Command {
	limit := time.Hour
	c := &cobra.Command{
		Use:     "poll [MODULE]",
		GroupID: "mirror",
		Short:   "look at the upstream once, bring what is new, report, and end: for cron",
		Long: `Does once what the agent does all the time: looks at the upstream's head, brings what is missing, and reports. For hosts without a daemon. If an agent
runs it is told to look now, and this command ends at once; if another poll runs, or mirrorbus receive --alone, nothing is done, as that looks too.
A look at an upstream that has nothing new is one rsync of one small file. After ten at once a mirror looks every ten seconds at most: it is waited for.

Exit status: 0 the mirror is where its upstream is; 75 something is left to be tried again, or the upstream is out of date, so that nobody can tell.`,
		Example: "  mirrorbus poll\n  */10 * * * * mirror mirrorbus poll        (in /etc/cron.d/mirrorbus)",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var module event.Module
			if len(args) > 0 {
				var err error
				if module, err = event.ParseModule(args[0]); err != nil {
					return usage(err, "")
				}
			}
			return a.poll(c.Context(), module, limit)
		},
	}
	c.Flags().DurationVar(&limit, "limit", limit, "end after so long even if something is left to be tried again")
	return c
}

func (a *app) poll(ctx context.Context, module event.Module, limit time.Duration) error {
	conf, err := a.mirrorConfig()
	if err != nil {
		return err
	}
	modules := conf.Modules
	if module != "" {
		if modules, err = only(modules, func(m listener.ModuleConfig) bool { return m.Name == string(module) }, string(module)); err != nil {
			return err
		}
	}
	client := control.NewClient(string(conf.Socket))
	for _, m := range modules {
		if err = client.Do(ctx, "POST", "/v1/sync/"+m.Name, nil, nil); err != nil {
			break
		}
	}
	if !control.IsDown(err) {
		return err
	}
	err = a.alone(ctx, conf, func(ctx context.Context, d *daemon.Daemon) error {
		if err := d.Look(ctx, module); err != nil {
			return err
		}
		if err := d.Rest(ctx, limit); err != nil {
			return fault.With(err, fault.TryAgain, "see mirrorbus status")
		}
		return d.Fresh(ctx, module)
	})
	if errors.Is(err, statelock.ErrInUse) {
		return nil // whoever has it looks as well
	}
	return err
}

// alone is the mirror's daemon for as long as f takes, without a control socket.
func (a *app) alone(ctx context.Context, conf *listener.Config, f func(context.Context, *daemon.Daemon) error) (err error) {
	d, err := daemon.Open(ctx, conf, a.log())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	outlets, err := a.outlets(conf.Transport, transports.Mirror, d.Env())
	if err != nil {
		return err
	}
	d.AddOutlets(outlets...)
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(work) }()
	err = f(work, d)
	stop()
	if runErr := <-ended; ctx.Err() == nil && !errors.Is(runErr, context.Canceled) {
		err = errors.Join(err, runErr)
	}
	return err
}
