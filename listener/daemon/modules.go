package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/indexes"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/exec"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
	"github.com/mirrorbus/mirrorbus/listener/trace"
)

// modules makes each module's parts. The rsync that is installed is tried first: a version says little.
func (d *Daemon) modules(ctx context.Context) ([]listener.Module, error) {
	features, err := rsync.Probe(ctx, d.conf.Rsync)
	if err != nil && d.needsRsync() {
		return nil, fault.With(err, fault.Config, "install rsync 3.1 or newer, or set rsync to its path")
	}
	for _, w := range features.Warnings {
		d.log.Warn("rsync", "version", features.Version, "warning", w)
	}
	modules := make([]listener.Module, len(d.conf.Modules))
	for i, c := range d.conf.Modules {
		if modules[i], err = d.module(c, features); err != nil {
			return nil, fault.With(fmt.Errorf("module %s: %w", c.Name, err), fault.Config, "")
		}
	}
	return modules, nil
}

func (d *Daemon) needsRsync() bool {
	for _, m := range d.conf.Modules {
		if m.Upstream != "" {
			return true
		}
	}
	return false
}

func (d *Daemon) module(c listener.ModuleConfig, features rsync.Features) (listener.Module, error) {
	rules, err := subset(c)
	if err != nil {
		return listener.Module{}, err
	}
	m := listener.Module{
		Name: event.Module(c.Name), Dir: string(c.Path), Links: c.FollowLinks, Rules: rules, Last: indexes.Expand(c.Last),
		MaxDelete: c.MaxDelete, MaxDeleteRatio: c.MaxDeleteRatio, NoExport: c.NoExport,
		Pushed: len(c.Push) > 0, SyncEvery: c.SyncEvery.Duration, Trace: c.Trace, Upstream: c.Upstream, Pre: c.Pre, Post: c.Post, HookTimeout: c.HookTimeout.Duration, Budgets: pace.DefaultBudgets(),
	}
	m.Budgets[pace.WorkFull] = pace.Budget{Burst: 1, Every: c.FullEvery.Duration}
	m.Budgets[pace.WorkPush] = pace.Budget{Burst: 4, Every: c.PushEvery.Duration}
	if c.Upstream != "" {
		r, err := d.runner(c, features)
		if err != nil {
			return listener.Module{}, err
		}
		d.runners[m.Name], m.Runner = r, listener.Rsync(r)
		m.CatchUp = d.source(c, r, rules)
	}
	if len(c.Exec) > 0 {
		m.Runner = &exec.Runner{Argv: c.Exec, Module: c.Name, Upstream: c.Upstream, Dest: string(c.Path), Timeout: execTimeout, Log: d.log}
	}
	return m, nil
}

// subset are the rules for what of the module this mirror carries. A trace file of its own is no part of it.
func subset(c listener.ModuleConfig) (*filter.Rules, error) {
	rules := c.Filter
	if c.Trace != "" {
		rules = slices.Concat(trace.Rules(c.Trace), rules)
	}
	return filter.Parse(rules)
}

// execTimeout bounds the operator's command for one step of a plan.
const execTimeout = 24 * time.Hour

func (d *Daemon) runner(c listener.ModuleConfig, features rsync.Features) (*rsync.Runner, error) {
	conf := rsync.Config{
		Upstream: rsync.Upstream{URL: c.Upstream, PasswordFile: string(c.PasswordFile), Shell: c.RemoteShell, BWLimitKiB: kib(uint64(c.BWLimit))},
		Dest:     string(c.Path), TempDir: string(c.TempDir), LockFile: stateFile(d.conf, c.Name+".lock"), Features: features,
		Owner: c.Owner, UnsafeLinks: c.UnsafeLinks, Stall: c.Stall.Duration,
	}
	for _, l := range c.FollowLinks {
		conf.Links = append(conf.Links, rsync.Link{Path: strings.Trim(l, "/")})
	}
	return rsync.New(conf)
}

// kib rounds a rate up to KiB, as rsync wants it.
func kib(bytes uint64) int { return int((bytes + 1023) / 1024) }
