package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/identity"
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
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	c.Flags().BoolVar(&show, "show", false, "print the configuration with every default; secrets are left out")
	return c
}

// A verdict is what check --json prints.
type verdict struct {
	Role     transports.Role `json:"role"`
	Right    bool            `json:"right"`
	Faults   []*config.Error `json:"faults,omitempty"`
	Error    string          `json:"error,omitempty"` // of what is not a fault in the file's text
	Warnings []string        `json:"warnings,omitempty"`
}

func (a *app) check(show bool) error {
	role, err := a.role()
	if err != nil {
		return err
	}
	v := verdict{Role: role}
	conf, err := a.judge(&v)
	if a.json {
		v.Right = err == nil
		var faults config.Errors
		if errors.As(err, &faults) {
			v.Faults = faults
		} else if err != nil {
			v.Error = err.Error()
		}
		return errors.Join(err, a.printJSON(v))
	}
	for _, w := range v.Warnings {
		fmt.Fprintf(a.err, "warning: %s\n", w)
	}
	if err != nil {
		return err
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

// judge reads the configuration and its trust file.
func (a *app) judge(v *verdict) (conf any, err error) {
	var who identity.Config
	var sections config.Sections
	if v.Role == transports.Master {
		c, err := a.masterConfig()
		if err != nil {
			return nil, err
		}
		conf, who, sections = c, c.Config, c.Transport
	} else {
		c, err := a.mirrorConfig()
		if err != nil {
			return nil, err
		}
		conf, who, sections = c, c.Config, c.Transport
	}
	store, err := signers.Open(string(who.Trust), string(who.Revoked))
	if err != nil {
		return nil, asConfigFault(err)
	}
	for _, p := range store.Problems() {
		v.Warnings = append(v.Warnings, p.String()+"; the line counts for nothing")
	}
	switch {
	case len(sections) > 0:
	case v.Role == transports.Mirror:
		v.Warnings = append(v.Warnings, "no [transport.…]: nothing is heard and nothing is reported; the upstream is looked at, see look_every")
	default:
		v.Warnings = append(v.Warnings, "no [transport.…]: nothing is heard and nothing is sent")
	}
	return conf, nil
}
