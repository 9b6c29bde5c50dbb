package daemon

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A Plan is what would be run for a module now.
type Plan struct {
	Schema  int          `json:"schema"`
	Module  event.Module `json:"module"`
	From    event.Serial `json:"from"`
	To      event.Serial `json:"to"`
	Next    string       `json:"next"`           // what happens next, in words
	Held    string       `json:"held,omitempty"` // why somebody has to confirm it
	Reasons []string     `json:"reasons,omitempty"`
	Skipped int          `json:"skipped"`           // records outside of this mirror's subset
	Renames []string     `json:"renames,omitempty"` // done locally beforehand
	Stages  []Stage      `json:"stages"`
}

// A Stage is a part of a plan.
type Stage struct {
	Name string `json:"name"`
	Runs []Run  `json:"runs"`
}

// A Run is one start of rsync: its command line, and the names it reads from standard input.
type Run struct {
	Command string   `json:"command"` // quoted for a shell
	Names   []string `json:"names"`   // Go-quoted where they are not printable
	Refused []string `json:"refused,omitempty"`
}

// Plan makes the plan for a module without doing any of it.
func (d *Daemon) Plan(ctx context.Context, name event.Module) (Plan, error) {
	p, why, err := d.agent.Plan(ctx, name)
	if err != nil {
		return Plan{}, err
	}
	out := Plan{Schema: Schema, Module: name, From: p.From, To: p.To, Next: why, Held: p.Held, Reasons: p.Reasons, Skipped: p.Skipped, Stages: []Stage{}}
	for _, r := range p.Renames {
		out.Renames = append(out.Renames, fmt.Sprintf("%q to %q", r.From, r.To))
	}
	runner := d.runners[name]
	if runner == nil {
		return out, nil
	}
	for _, s := range p.Stages {
		stage := Stage{Name: string(s.Name)}
		for _, r := range s.Runs {
			commands, refused, err := runner.Commands(listener.Job(r))
			if err != nil {
				return Plan{}, err
			}
			stage.Runs = append(stage.Runs, runs(commands, refused)...)
		}
		out.Stages = append(out.Stages, stage)
	}
	return out, nil
}

func runs(commands []rsync.Command, refused []rsync.PathError) []Run {
	var all []Run
	for _, c := range commands {
		r := Run{Command: shellLine(c.Argv)}
		for _, n := range c.List {
			r.Names = append(r.Names, printable(n))
		}
		all = append(all, r)
	}
	if len(refused) > 0 && len(all) == 0 {
		all = append(all, Run{})
	}
	for _, p := range refused {
		all[0].Refused = append(all[0].Refused, p.String())
	}
	return all
}

func printable(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// shellLine quotes a command for reading and for a POSIX shell.
func shellLine(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		if a == "" || i == 0 && strings.Contains(a, "=") || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=/.:,@%+") != "" {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}
