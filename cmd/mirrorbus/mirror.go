package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) mirrorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "mirror",
		GroupID: "master",
		Short:   "let a mirror join, or forget one",
		Example: "  mirrorbus mirror join master.example.org:2222\n  mirrorbus mirror add mirror1 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…'\n  mirrorbus mirror forget mirror1",
	}
	c.AddCommand(a.mirrorAddCommand(), a.mirrorJoinCommand(), a.mirrorForgetCommand())
	return c
}

func (a *app) mirrorAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "add NAME 'PUBLIC KEY'",
		Short:   "trust a mirror's reports, and let it subscribe",
		Long:    "Adds a mirror to the trust file: its key may sign reports and subscribe, and nothing else. A running hub sees it at once.",
		Example: "  mirrorbus mirror add mirror1 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…'",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			if err := enrol.AddMirror(string(conf.Trust), args[0], args[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s may report and subscribe\n", args[0])
			return err
		},
	}
}

func (a *app) mirrorJoinCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "join HOST:PORT",
		Short:   "print the word that a mirror joins with",
		Long:    "Prints again what init master printed: the word that mirrorbus init mirror takes. HOST:PORT is where mirrors reach the hub.",
		Example: "  mirrorbus mirror join master.example.org:2222",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			join, err := joinOf(conf, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, join)
			return err
		},
	}
}

func (a *app) mirrorForgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "forget NAME",
		Short:   "drop what is known of a mirror",
		Long:    "Drops a mirror from status and from what publish --wait waits for. To keep it out, remove its line from the trust file too.",
		Example: "  mirrorbus mirror forget mirror1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			return orAlone(string(conf.Socket), func() error {
				return control.NewClient(string(conf.Socket)).Do(c.Context(), "POST", "/v1/forget", args[0], nil)
			}, func() error { return trigger.ForgetAlone(c.Context(), conf, args[0]) })
		},
	}
}
