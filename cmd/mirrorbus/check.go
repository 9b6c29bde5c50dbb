package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

func (a *app) checkCommand() *cobra.Command {
	var show bool
	c := &cobra.Command{
		Use:     "check",
		GroupID: "both",
		Short:   "check the configuration",
		Long: `Reads the configuration and the trust file, and says what is wrong, with file, line and the nearest known key. It touches no network and starts
nothing. The exit status is 78 if anything is wrong.`,
		Example: "  mirrorbus check\n  mirrorbus check -c /etc/mirrorbus/mirror.toml --show",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.check(show) },
	}
	c.Flags().BoolVar(&show, "show", false, "print the configuration with every default; secrets are left out")
	return c
}

func (a *app) check(show bool) error {
	role, err := a.role()
	if err != nil {
		return err
	}
	var conf any
	var trust, revoked string
	var sections config.Sections
	if role == transports.Master {
		c, err := a.masterConfig()
		if err != nil {
			return err
		}
		conf, trust, revoked, sections = c, string(c.Trust), string(c.Revoked), c.Transport
	} else {
		c, err := a.mirrorConfig()
		if err != nil {
			return err
		}
		conf, trust, revoked, sections = c, string(c.Trust), string(c.Revoked), c.Transport
	}
	store, err := signers.Open(trust, revoked)
	if err != nil {
		return asConfigFault(err)
	}
	for _, p := range store.Problems() {
		fmt.Fprintf(a.err, "warning: %s; the line counts for nothing\n", p)
	}
	if len(sections) == 0 {
		fmt.Fprintln(a.err, "warning: no [transport.…]: nothing is heard and nothing is sent")
	}
	if !show {
		_, err = fmt.Fprintf(a.out, "the %s configuration is right\n", role)
		return err
	}
	text, err := config.Effective(conf)
	if err != nil {
		return err
	}
	_, err = a.out.Write(text)
	return err
}
