package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

const exitStatus = `
EXIT STATUS
   0  done
   1  tried and not done
   2  the command line is wrong
  69  a daemon, or the upstream, does not answer
  75  not now; nothing is lost, try again
  78  the configuration is wrong`

// An app is one run of the program: its streams and the options that every command has.
type app struct {
	in       io.Reader
	out, err io.Writer

	config  string
	json    bool
	metrics bool // of status, in place of words
	verbose bool
}

// run runs the command line args and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	a := &app{in: in, out: out, err: errw}
	root := a.root()
	root.SetArgs(args)
	if byMail(args) {
		return a.mailStatus(func() error { return root.ExecuteContext(ctx) })
	}
	err := unknownCommand(root, root.ExecuteContext(ctx))
	if err != nil {
		a.printError(err)
	}
	return fault.StatusOf(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mirrorbus",
		Short: "announce what changed on a master, and bring its mirrors up to date at once",
		Long: `mirrorbus announces what changed on a master, and brings its mirrors up to date at once.

A master runs the hub and publishes changes; a mirror runs the agent, which runs rsync on exactly the changed paths and reports back.
See it work in a minute: mirrorbus demo`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetHelpTemplate(root.HelpTemplate() + exitStatus + "\n") // of every command
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(err, "see "+c.CommandPath()+" --help") })
	root.PersistentFlags().StringVarP(&a.config, "config", "c", os.Getenv("MIRRORBUS_CONFIG"),
		"configuration `FILE` (default: $MIRRORBUS_CONFIG, else /etc/mirrorbus/master.toml or mirror.toml, whichever is there)")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log debugging lines too")
	root.AddGroup(&cobra.Group{ID: "start", Title: "To begin:"}, &cobra.Group{ID: "master", Title: "On a master:"},
		&cobra.Group{ID: "mirror", Title: "On a mirror:"}, &cobra.Group{ID: "both", Title: "On both:"})
	for _, c := range a.commands() {
		c.Args = usageArgs(c.Args)
		for _, sub := range c.Commands() {
			sub.Args = usageArgs(sub.Args)
		}
		root.AddCommand(c)
	}
	root.SetHelpCommandGroupID("both")
	root.SetCompletionCommandGroupID("both")
	return root
}

// usageArgs makes an argument check fail with the status for wrong usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		return nil
	}
	return func(c *cobra.Command, args []string) error {
		return usage(check(c, args), "see "+c.CommandPath()+" --help")
	}
}

func usage(err error, hint string) error { return fault.With(err, fault.Usage, hint) }

// unknownCommand makes a fault of cobra's error about a command that does not exist, with the nearest ones as the hint.
func unknownCommand(root *cobra.Command, err error) error {
	if err == nil || !strings.HasPrefix(err.Error(), "unknown command") {
		return err
	}
	what, _, _ := strings.Cut(err.Error(), "\n")
	hint := "see mirrorbus --help"
	if parts := strings.SplitN(what, `"`, 3); len(parts) == 3 {
		if near := root.SuggestionsFor(parts[1]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, ", or ") + "? " + hint
		}
	}
	return usage(errors.New(what), hint)
}

// printError writes one line of error and, if there is one, one of hint. A fault in a configuration file is shown in its lines.
func (a *app) printError(err error) {
	var faults config.Errors
	if errors.As(err, &faults) {
		for _, f := range faults {
			fmt.Fprintf(a.err, "mirrorbus: error: %s", f.Detail())
		}
		return
	}
	fmt.Fprintf(a.err, "mirrorbus: error: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", hint)
	}
}
