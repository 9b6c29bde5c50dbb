package main

import (
	"context"
	"errors"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/all"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) hubCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "hub",
		GroupID: "master",
		Short:   "run the master's daemon: relay announcements, collect reports",
		Long: `Runs the master's daemon. It relays what is published to the mirrors, keeps .mirrorbus/ in each module, signs heads, and collects reports.
It stays in the foreground and logs to standard error; deploy/ has a systemd unit. It ends on SIGTERM.`,
		Example: "  mirrorbus hub\n  mirrorbus hub -c /etc/mirrorbus/master.toml -v",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.hub(c.Context()) },
	}
}

func (a *app) hub(ctx context.Context) (err error) {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	log := a.log()
	// The socket comes first: a command that finds it waits for the answer, instead of opening the databases itself.
	socket, err := control.Listen(string(conf.Socket))
	if err != nil {
		return err
	}
	parts, err := trigger.OpenParts(ctx, conf, log)
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	defer func() { err = errors.Join(err, parts.Close()) }()
	hub := trigger.NewHub(conf, parts, log)
	outlets, err := a.outlets(conf.Transport, transports.Master, hub.Env(parts.Signer))
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	hub.AddOutlets(outlets...)
	return a.serve(ctx, func(ctx context.Context) error { return control.Serve(ctx, socket, hub.Handler()) }, hub.Run)
}

// outlets opens the transports that the configuration names.
func (a *app) outlets(sections config.Sections, role transports.Role, env transports.Env) ([]outlet.Outlet, error) {
	var opened []outlet.Outlet
	for _, name := range sections.Names() {
		driver, err := all.Registry().Lookup(name)
		if err != nil {
			return nil, err
		}
		t, err := all.Registry().Open(role, name, sections[name], env)
		if err != nil {
			return nil, asConfigFault(err)
		}
		opened = append(opened, outlet.Outlet{Name: name, Transport: t, Caps: driver.Capabilities(role)})
	}
	return opened, nil
}

// serve runs the parts of a daemon together until ctx ends or one of them fails, and tells systemd how it stands. Being told to stop is no error.
func (a *app) serve(ctx context.Context, parts ...func(context.Context) error) error {
	g, inner := errgroup.WithContext(ctx)
	for _, run := range parts {
		g.Go(func() error { return run(inner) })
	}
	notify(daemon.SdNotifyReady)
	err := g.Wait()
	notify(daemon.SdNotifyStopping)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// notify tells systemd, where there is one. Nothing depends on its hearing it.
func notify(state string) {
	_, _ = daemon.SdNotify(false, state)
}
