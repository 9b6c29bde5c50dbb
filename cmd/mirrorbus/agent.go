package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/transports"
)

func (a *app) agentCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "agent",
		GroupID: "mirror",
		Short:   "run the mirror's daemon: hear announcements, apply them, report",
		Long: `Runs the mirror's daemon. It hears announcements, brings exactly the announced paths from the configured upstream, makes sure that they are there,
and reports. It stays in the foreground and logs to standard error; deploy/ has a systemd unit. It ends on SIGTERM, and goes on where it was.`,
		Example: "  mirrorbus agent\n  mirrorbus agent -c /etc/mirrorbus/mirror.toml -v\n  mirrorbus agent confirm fedora",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.agent(c.Context()) },
	}
	c.AddCommand(
		a.agentVerb("confirm", "allow the deletions that a module is held for",
			"A batch that deletes more names than max_delete or max_delete_ratio allow is held. Look at it with mirrorbus plan MODULE, then confirm it."),
		a.agentVerb("release", "take a module out of quarantine",
			"A module of which one serial was heard with two different contents is quarantined: a key is stolen, or two masters believe they are one.\nFind out first. After the release the module is compared with the upstream's manifest."),
		a.agentVerb("sync", "look at the upstream now", "Looks at the upstream's head now, and tries at once what waits to be tried again. What waits for the end of a compose on the master goes on waiting."),
	)
	return c
}

// agentVerb is a command to the running agent about one module.
func (a *app) agentVerb(verb, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:     verb + " MODULE",
		Short:   short,
		Long:    long,
		Example: "  mirrorbus agent " + verb + " fedora",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			conf, err := a.mirrorConfig()
			if err != nil {
				return err
			}
			module, err := event.ParseModule(args[0])
			if err != nil {
				return usage(err, "")
			}
			return control.NewClient(string(conf.Socket)).Do(c.Context(), "POST", "/v1/"+verb+"/"+string(module), nil, nil)
		},
	}
}

func (a *app) agent(ctx context.Context) (err error) {
	conf, err := a.mirrorConfig()
	if err != nil {
		return err
	}
	socket, err := control.Listen(string(conf.Socket)) // first, see hub
	if err != nil {
		return err
	}
	d, err := daemon.Open(ctx, conf, a.log())
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	outlets, err := a.outlets(conf.Transport, transports.Mirror, d.Env())
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	d.AddOutlets(outlets...)
	return a.serve(ctx, func(ctx context.Context) error { return control.Serve(ctx, socket, d.Handler()) }, d.Run)
}

// askMirror asks the running agent, or if none runs opens the inbox and asks an idle one.
func (a *app) askMirror(ctx context.Context, path string, out any, ask func(*daemon.Daemon) error) error {
	conf, err := a.mirrorConfig()
	if err != nil {
		return err
	}
	return orAlone(string(conf.Socket), func() error {
		return control.NewClient(string(conf.Socket)).Do(ctx, "GET", path, nil, out)
	}, func() error { return a.idle(ctx, conf, ask) })
}

// idle opens an agent that does nothing by itself.
func (a *app) idle(ctx context.Context, conf *listener.Config, ask func(*daemon.Daemon) error) (err error) {
	d, err := daemon.Open(ctx, conf, a.log())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return ask(d)
}

func (a *app) mirrorStatus(ctx context.Context, module string) error {
	var s daemon.Status
	err := a.askMirror(ctx, "/v1/status", &s, func(d *daemon.Daemon) (err error) {
		s, err = d.Status(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if module != "" {
		if s.Modules, err = only(s.Modules, isModule(module), module); err != nil {
			return err
		}
	}
	switch {
	case a.json:
		return a.printJSON(s)
	case a.metrics:
		return a.printMirrorMetrics(s)
	case !s.Running:
		fmt.Fprintln(a.out, "The agent does not run: nothing happens until mirrorbus agent starts.")
	}
	return a.printMirror(s)
}
