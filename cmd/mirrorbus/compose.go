package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

func (a *app) composeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "compose",
		GroupID: "master",
		Short:   "have mirrors wait while a module is half made",
		Long: `Brackets a compose that leaves the module half made for a while.

From begin to commit mirrors fetch nothing of the module: neither what was announced before, nor when they start, look or catch up. What is published
meanwhile is kept, and announced once at the commit, as it is then. Flips pass. A compose that nobody ends does so when its limit is over: what was kept is announced,
and status and log say so. Mirrors without mirrorbus, and plain rsync, take what is there.`,
		Example: "  mirrorbus compose begin fedora --limit 1h --note 'updates push'\n  … make the changes, publish as ever …\n  mirrorbus compose commit fedora --wait",
	}
	c.AddCommand(a.composeBeginCommand(), a.composeCommitCommand(), a.composeAbortCommand(), a.composeStatusCommand())
	return c
}

func (a *app) composeBeginCommand() *cobra.Command {
	limit, r := trigger.DefaultLimit, trigger.ComposeRequest{}
	c := &cobra.Command{
		Use:   "begin MODULE",
		Short: "have mirrors wait from now on",
		Long: `Begins a compose. When it returns, mirrors that look at the master are asked to wait, and those who are connected are being told. Fetches that are under way go on: begin
when mirrors have what was announced before (mirrorbus wait MODULE). A second begin is refused until the first has ended; with --extend it only lets that last longer.`,
		Example: "  mirrorbus compose begin fedora --limit 1h --note 'updates push'\n  mirrorbus compose begin fedora --extend --limit 30m",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if r.Module, err = event.ParseModule(args[0]); err != nil {
				return usage(err, "")
			}
			if limit < time.Second {
				return usage(fmt.Errorf("--limit %v: must be from 1s to %v", limit, trigger.MaxLimit), "write a number and its unit, as in 90m")
			}
			r.Limit, r.Who = trigger.Seconds(limit/time.Second), whoami()
			return a.composeBegin(c.Context(), r)
		},
	}
	c.Flags().DurationVar(&limit, "limit", limit, "the compose ends by itself after so `LONG`, from now; a day at most")
	c.Flags().StringVar(&r.Note, "note", "", "what is done, as `TEXT` for those who ask")
	c.Flags().BoolVar(&r.Extend, "extend", false, "let the compose that is under way last until --limit from now")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) composeCommitCommand() *cobra.Command {
	var wait string
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "commit MODULE",
		Short:   "announce what was kept, and let mirrors fetch it",
		Long:    "Ends a compose: announces what was published meanwhile, once and as it is now, and mirrors fetch again.",
		Example: "  mirrorbus compose commit fedora\n  mirrorbus compose commit fedora --wait=30 --timeout 1h",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.composeEnd(c.Context(), trigger.ComposeRequest{Module: event.Module(args[0])}, wait, timeout)
		},
	}
	c.Flags().StringVar(&wait, "wait", "", "wait until `N` mirrors, or all that are not away, have applied it")
	c.Flags().Lookup("wait").NoOptDefVal = "all"
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "wait this `LONG` at most, then exit with 75")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) composeAbortCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "abort MODULE",
		Short: "give a compose up",
		Long: `Ends a compose that is given up: put the tree back as it was first. What was published meanwhile is announced as it is now all the same, since mirrors were promised it:
where the tree is as it was they find nothing to fetch.`,
		Example: "  mirrorbus compose abort fedora",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.composeEnd(c.Context(), trigger.ComposeRequest{Module: event.Module(args[0]), Abort: true}, "", 0)
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) composeStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status [MODULE]",
		Short: "tell of composes that are under way",
		Long: `Tells of the compose of a module, or of each: since when it is under way, who began it, until when at the latest, and how much it has gathered; or how the
last one ended.`,
		Example: "  mirrorbus compose status\n  mirrorbus compose status fedora --json",
		Args:    cobra.MaximumNArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return a.composeStatus(c.Context(), args) },
	}
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) composeBegin(ctx context.Context, r trigger.ComposeRequest) error {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	var begun trigger.Compose
	relayed := true
	err = orAlone(string(conf.Socket), func() error {
		return control.NewClient(string(conf.Socket)).Do(ctx, "POST", "/v1/compose/begin", r, &begun)
	}, func() (err error) {
		relayed = false
		begun, err = trigger.BeginAlone(ctx, conf, r, a.log())
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(begun)
	}
	what := "begun"
	if r.Extend {
		what = "extended"
	}
	fmt.Fprintf(a.out, "%s: compose %s, mirrors wait until %s at the latest\n", begun.Module, what, begun.Until.UTC().Format(time.RFC3339))
	if !relayed {
		fmt.Fprintln(a.out, "the hub does not run: mirrors learn of it when they look at the master")
	}
	return nil
}

func (a *app) composeEnd(ctx context.Context, r trigger.ComposeRequest, wait string, timeout time.Duration) error {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	if _, err := parseWait(wait); err != nil {
		return err
	}
	client := control.NewClient(string(conf.Socket))
	var done trigger.Published
	err = orAlone(string(conf.Socket), func() error { return client.Do(ctx, "POST", "/v1/compose/end", r, &done) }, func() (err error) {
		how := journal.Committed
		if r.Abort {
			how = journal.Aborted
		}
		done, err = trigger.EndAlone(ctx, conf, r.Module, how, a.log())
		return err
	})
	if err != nil {
		return err
	}
	if !a.json {
		fmt.Fprintf(a.out, "%s: compose %s\n", done.Module, map[bool]string{false: "committed", true: "aborted"}[r.Abort])
	}
	if done.Serial == 0 && !a.json {
		_, err = fmt.Fprintln(a.out, "nothing that mirrors may have was published meanwhile, so nothing is announced")
	} else {
		err = a.printPublished(done, publishOptions{})
	}
	if err != nil || wait == "" || done.Serial == 0 {
		return err
	}
	return a.waitFor(ctx, client, done, wait, timeout)
}

func (a *app) composeStatus(ctx context.Context, args []string) error {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		for _, m := range conf.Modules {
			args = append(args, m.Name)
		}
	}
	for _, name := range args {
		var c trigger.Compose
		err := orAlone(string(conf.Socket), func() error {
			return control.NewClient(string(conf.Socket)).Do(ctx, "GET", "/v1/compose?"+url.Values{"module": {name}}.Encode(), nil, &c)
		}, func() (err error) {
			c, err = trigger.ComposeAlone(ctx, conf, event.Module(name), a.log())
			return err
		})
		if err != nil {
			return err
		}
		if a.json {
			err = a.printJSON(c)
		} else {
			_, err = fmt.Fprintf(a.out, "%s: %s\n", c.Module, composeSentence(c))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// composeSentence is a compose for people.
func composeSentence(c trigger.Compose) string {
	switch {
	case c.Open:
		return fmt.Sprintf("a compose is under way %s; it ends by itself at %s; %s gathered", c, c.Until.UTC().Format(time.RFC3339), plural(c.Names, "name"))
	case c.Began.IsZero():
		return "no compose is under way, and none ever was"
	case c.Ended == journal.Overran:
		return fmt.Sprintf("the compose %s was over its time: it was ended at %s, and what it had gathered was announced", c, c.EndedAt.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("no compose is under way; the last one, %s, was %s at %s", c, c.Ended, c.EndedAt.UTC().Format(time.RFC3339))
}

// whoami is who begins a compose, for people: whoever became root to do it.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); err == nil {
		name = cmp.Or(name, u.Username)
	}
	return name
}

// waitFor waits until mirrors have what was announced.
func (a *app) waitFor(ctx context.Context, client *control.Client, done trigger.Published, wait string, timeout time.Duration) error {
	switch {
	case !done.Held.IsZero():
		return fault.With(fmt.Errorf("nothing to wait for: a compose of %s is under way, until %s at the latest", done.Module, done.Held.UTC().Format(time.RFC3339)), fault.TryAgain,
			"it is kept, and announced by mirrorbus compose commit, which takes --wait")
	case !done.Relaying:
		return fault.With(errors.New("nothing to wait for: the hub does not run"), fault.TryAgain, "it is journalled; start mirrorbus hub, then mirrorbus wait")
	}
	return a.wait(ctx, client, done.Module, done.Epoch, done.Serial, wait, timeout)
}
