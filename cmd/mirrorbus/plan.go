package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
)

func (a *app) planCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "plan MODULE",
		GroupID: "mirror",
		Short:   "show what would be run for a module now",
		Long:    "Shows what would be run to bring a module from what is here to what was announced, and why: stages, rsync command lines, and the names each reads. Nothing is run.",
		Example: "  mirrorbus plan fedora\n  mirrorbus plan fedora --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			module, err := event.ParseModule(args[0])
			if err != nil {
				return usage(err, "")
			}
			var p daemon.Plan
			err = a.askMirror(c.Context(), "/v1/plan/"+string(module), &p, func(d *daemon.Daemon) (err error) {
				p, err = d.Plan(c.Context(), module)
				return err
			})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(p)
			}
			a.printPlan(p, all)
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "show every name, not the first twenty of each run")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

const namesShown = 20

func (a *app) printPlan(p daemon.Plan, all bool) {
	if p.Next != "" {
		fmt.Fprintf(a.out, "next: %s\n", p.Next)
	}
	if p.Held != "" {
		fmt.Fprintf(a.out, "held: %s; mirrorbus agent confirm %s lets it go on\n", p.Held, p.Module)
	}
	if len(p.Stages) == 0 {
		fmt.Fprintln(a.out, "nothing to run")
		return
	}
	fmt.Fprintf(a.out, "%s from serial %d to %d\n", p.Module, p.From, p.To)
	for _, r := range p.Reasons {
		fmt.Fprintf(a.out, "  because %s\n", r)
	}
	for _, r := range p.Renames {
		fmt.Fprintf(a.out, "rename %s\n", r)
	}
	for _, s := range p.Stages {
		fmt.Fprintf(a.out, "stage %s\n", s.Name)
		for _, r := range s.Runs {
			a.printRun(r, all)
		}
	}
}

func (a *app) printRun(r daemon.Run, all bool) {
	fmt.Fprintf(a.out, "  %s\n", r.Command)
	for i, n := range r.Names {
		if i == namesShown && !all {
			fmt.Fprintf(a.out, "    … %d more; --all shows them\n", len(r.Names)-i)
			break
		}
		fmt.Fprintf(a.out, "    %s\n", n)
	}
	for _, n := range r.Refused {
		fmt.Fprintf(a.out, "    refused: %s\n", n)
	}
}
