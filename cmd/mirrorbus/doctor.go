package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/doctor"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/all"
	"github.com/mirrorbus/mirrorbus/transports/hub"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "doctor",
		GroupID: "both",
		Short:   "look for what is wrong on this host",
		Long: `Looks for what is wrong on this host around the configuration: keys and trust, folders and room, the rsync that is installed, the upstream and
its head, the hub, symbolic links in a mirror's tree, and how the running daemon says that its transports are. It changes nothing. The exit status is 1 if
something is bad.`,
		Example: "  mirrorbus doctor\n  mirrorbus doctor --json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.doctor(c.Context()) },
	}
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) doctor(ctx context.Context) error {
	role, err := a.role()
	if err != nil {
		return err
	}
	var checks []doctor.Check
	if role == transports.Master {
		conf, err := a.masterConfig()
		if err != nil {
			return err
		}
		checks = masterChecks(conf)
	} else {
		conf, err := a.mirrorConfig()
		if err != nil {
			return err
		}
		checks = mirrorChecks(conf)
	}
	var findings []doctor.Finding
	well, err := doctor.Run(ctx, checks, func(f doctor.Finding) error {
		findings = append(findings, f)
		if a.json {
			return nil
		}
		return doctor.Print(a.out, f)
	})
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(findings); err != nil {
			return err
		}
	}
	if !well {
		return fault.With(errSick, fault.Failed, "")
	}
	return nil
}

func masterChecks(conf *trigger.Config) []doctor.Check {
	checks := []doctor.Check{
		doctor.Key(string(conf.Key), conf.AgentSocket(), string(conf.Trust), string(conf.Revoked), conf.Name, event.Change, event.Flip, event.HeadIs),
		doctor.Trust(string(conf.Trust), string(conf.Revoked)),
		doctor.Folder("state folder", string(conf.State), true),
	}
	for _, m := range conf.Modules {
		checks = append(checks, doctor.Folder("module "+m.Name, string(m.Path), true))
	}
	if c, ok := conf.Transport["hub"].(*hub.ServerConfig); ok {
		checks = append(checks, doctor.Dial("hub", localAddress(c.Listen)))
	}
	checks = append(checks, transportChecks(conf.Transport, transports.Master, conf.Name, moduleNames(conf.Modules, func(m trigger.ModuleConfig) string { return m.Name }))...)
	return append(checks, daemonCheck("hub daemon", string(conf.Socket)))
}

func mirrorChecks(conf *listener.Config) []doctor.Check {
	checks := []doctor.Check{
		doctor.Key(string(conf.Key), conf.AgentSocket(), "", "", conf.Name),
		doctor.Trust(string(conf.Trust), string(conf.Revoked)),
		doctor.Folder("state folder", string(conf.State), true),
		{Name: "rsync", Run: func(ctx context.Context) doctor.Finding { return daemon.CheckRsync(ctx, conf.Rsync) }},
	}
	for _, m := range conf.Modules {
		checks = append(checks, doctor.Folder("module "+m.Name, string(m.Path), true), doctor.Links(string(m.Path), m.FollowLinks),
			doctor.Check{Name: "upstream of " + m.Name, Run: func(ctx context.Context) doctor.Finding { return daemon.CheckUpstream(ctx, conf, m) }})
	}
	if c, ok := conf.Transport["hub"].(*hub.ClientConfig); ok {
		checks = append(checks, doctor.Dial("hub", c.Address))
	}
	checks = append(checks, transportChecks(conf.Transport, transports.Mirror, conf.Name, moduleNames(conf.Modules, func(m listener.ModuleConfig) string { return m.Name }))...)
	return append(checks, daemonCheck("agent daemon", string(conf.Socket)))
}

// transportChecks are what the transports themselves have to say.
func transportChecks(sections config.Sections, role transports.Role, self string, modules []string) (checks []doctor.Check) {
	for _, name := range sections.Names() {
		driver, err := all.Registry().Lookup(name)
		if err != nil {
			continue // the configuration was checked
		}
		checks = append(checks, doctor.Check{Name: name, RunAll: func(ctx context.Context) (found []doctor.Finding) {
			for _, f := range driver.Examine(ctx, role, sections[name], transports.Env{Self: self, Modules: modules}) {
				found = append(found, doctor.Finding{Level: levels[f.Level], Detail: joined(f.What, f.Err), Remedy: f.Remedy})
			}
			return found
		}})
	}
	return checks
}

func moduleNames[T any](all []T, name func(T) string) (found []string) {
	for _, v := range all {
		found = append(found, name(v))
	}
	return found
}

// daemonCheck looks whether the daemon answers, and asks it how its transports are: what was sent and came back, only it knows.
func daemonCheck(name, socket string) doctor.Check {
	return doctor.Check{Name: name, RunAll: func(ctx context.Context) []doctor.Finding {
		found := []doctor.Finding{doctor.Socket(name, socket).Run(ctx)}
		if found[0].Level != doctor.OK {
			return found
		}
		var s struct {
			Transports []outlet.Status `json:"transports"`
		}
		if err := control.NewClient(socket).Do(ctx, "GET", "/v1/status", nil, &s); err != nil {
			return append(found, doctor.Finding{Level: doctor.Warn, Detail: err.Error(), Remedy: "see its log"})
		}
		for _, t := range s.Transports {
			f := doctor.Finding{Level: doctor.OK, Detail: fmt.Sprintf("transport %s is %s", t.Name, t.State)}
			if t.State != outlet.Connected {
				f.Level, f.Remedy = doctor.Warn, "mend what it names; it is tried again by itself, and mirrorbus help states says what the word means"
			}
			if t.Reason != "" {
				f.Detail += ": " + t.Reason
			}
			found = append(found, f)
		}
		return found
	}}
}

var levels = map[transports.Level]doctor.Level{transports.LevelGood: doctor.OK, transports.LevelWarn: doctor.Warn, transports.LevelBad: doctor.Bad}

func joined(what string, err error) string {
	if err == nil {
		return what
	}
	return what + ": " + err.Error()
}

// localAddress is how a daemon of this host that listens on any address is reached.
func localAddress(listen string) string {
	for _, anywhere := range []string{"0.0.0.0:", "[::]:", ":"} {
		if port, ok := strings.CutPrefix(listen, anywhere); ok {
			return "localhost:" + port
		}
	}
	return listen
}

var errSick = errors.New("something is wrong, see above")
