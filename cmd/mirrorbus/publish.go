package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
)

type publishOptions struct {
	from      string
	nul       bool
	flip      bool
	notBefore string
	expires   time.Duration
	dryRun    bool
	wait      string
	timeout   time.Duration
}

func (a *app) publishCommand() *cobra.Command {
	var o publishOptions
	c := &cobra.Command{
		Use:     "publish MODULE [PATH…]",
		GroupID: "master",
		Short:   "announce that paths of a module changed",
		Long: `Announces that paths of a module changed. It returns once the announcement is durable; the hub relays it, now or when it starts.

A PATH is relative to the module and is looked at as it is now; a directory stands for everything below it. A prefix says more:

  +PATH    this one inode was written, and nothing below it
  =PATH    only its mode, owner or times changed, and nothing below it
  -PATH    it is gone, with all that was below it (put -- before such names)
  d:PATH   a directory's own level: its entries as they are now, without what is below them
  r:PATH   a directory and everything below it

A name that really begins like that is written ./NAME.`,
		Example: `  mirrorbus publish fedora releases/43/README releases/43/Everything/x86_64/os/repodata
  mirrorbus publish fedora --wait=all --timeout 5m -- updates/43 -updates/42
  find . -newer .stamp -type f -print0 | mirrorbus publish fedora --from - -0
  mirrorbus publish fedora --flip releases/43 --not-before 2026-11-24T14:00:00Z`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.publish(c.Context(), o, args) },
	}
	c.Flags().StringVar(&o.from, "from", "", "read names from `FILE`, one a line; - is standard input")
	c.Flags().BoolVarP(&o.nul, "null", "0", false, "names in --from end with NUL instead of a line end")
	c.Flags().BoolVar(&o.flip, "flip", false, "only metadata changed, of content that mirrors have: overtakes everything else")
	c.Flags().StringVar(&o.notBefore, "not-before", "", "with --flip: mirrors apply it at `TIME` (RFC 3339), not earlier")
	c.Flags().DurationVar(&o.expires, "expires", 24*time.Hour, "with --flip: mirrors that cannot apply it for this `LONG` after its time leave it")
	c.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be announced")
	c.Flags().StringVar(&o.wait, "wait", "", "wait until `N` mirrors, or all that are not away, have applied it")
	c.Flags().Lookup("wait").NoOptDefVal = "all"
	c.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "wait this `LONG` at most, then exit with 75")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) publish(ctx context.Context, o publishOptions, args []string) error {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	req, err := a.request(o, args)
	if err != nil {
		return err
	}
	if _, err := parseWait(o.wait); err != nil {
		return err
	}
	client := control.NewClient(string(conf.Socket))
	var done trigger.Published
	err = orAlone(string(conf.Socket), func() error { return client.Do(ctx, "POST", "/v1/publish", req, &done) }, func() (err error) {
		done, err = trigger.PublishAlone(ctx, conf, req, a.log())
		return err
	})
	if fault.StatusOf(err) == fault.Unavailable && fault.HintOf(err) != "" {
		err = fault.With(err, fault.Unavailable, fault.HintOf(err)+"; mirrorbus log tells whether it was announced, and to announce it again does no harm")
	}
	if err != nil {
		return err
	}
	if err := a.printPublished(done, o); err != nil || o.dryRun || o.wait == "" {
		return err
	}
	if !done.Relaying {
		return fault.With(errors.New("nothing to wait for: the hub does not run"), fault.TryAgain, "it is journalled; start mirrorbus hub, then mirrorbus wait")
	}
	return a.wait(ctx, client, done.Module, done.Epoch, done.Serial, o.wait, o.timeout)
}

// request gathers what the command line and the list name.
func (a *app) request(o publishOptions, args []string) (trigger.Request, error) {
	module, err := event.ParseModule(args[0])
	if err != nil {
		return trigger.Request{}, usage(err, "")
	}
	var names []trigger.Name
	for _, arg := range args[1:] {
		names = append(names, trigger.ParseName(arg))
	}
	if o.from != "" {
		more, err := a.readNames(o)
		if err != nil {
			return trigger.Request{}, err
		}
		names = append(names, more...)
	} else if o.nul {
		return trigger.Request{}, usage(errors.New("-0 without --from"), "add --from FILE, or --from - for standard input")
	}
	if len(names) == 0 {
		return trigger.Request{}, usage(errors.New("nothing to announce"), "name paths, or give a list with --from")
	}
	req := trigger.NewRequest(module, names)
	req.DryRun, req.Source = o.dryRun, "publish"
	return req, o.schedule(&req)
}

func (o publishOptions) schedule(req *trigger.Request) error {
	if !o.flip {
		if o.notBefore != "" {
			return usage(errors.New("--not-before without --flip"), "only a flip can wait for its time")
		}
		return nil
	}
	req.Flip = true
	if o.notBefore != "" {
		at, err := time.Parse(time.RFC3339, o.notBefore)
		if err != nil {
			return usage(fmt.Errorf("--not-before %q: %w", o.notBefore, err), "for example 2026-11-24T14:00:00Z")
		}
		req.NotBefore = at
	}
	from := time.Now()
	if req.NotBefore.After(from) {
		from = req.NotBefore
	}
	req.Expires = from.Add(o.expires)
	return nil
}

func (a *app) readNames(o publishOptions) (_ []trigger.Name, err error) {
	in := a.in
	if o.from != "-" {
		f, err := os.Open(o.from)
		if err != nil {
			return nil, usage(err, "name a file that can be read, or - for standard input")
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = io.Reader(f)
	}
	names, err := trigger.ReadNames(in, o.nul)
	if err != nil {
		return nil, usage(fmt.Errorf("--from %s: %w", o.from, err), "nothing was announced")
	}
	return names, nil
}

func (a *app) printPublished(p trigger.Published, o publishOptions) error {
	if a.json {
		return a.printJSON(p)
	}
	if o.dryRun {
		for _, r := range p.Set {
			fmt.Fprintln(a.out, r)
		}
		_, err := fmt.Fprintf(a.out, "would announce %s of %s\n", plural(p.Records, "record"), p.Module)
		return err
	}
	fmt.Fprintf(a.out, "%s %d announced: %s\n", p.Module, p.Serial, plural(p.Records, "record"))
	if p.Condensed {
		fmt.Fprintln(a.out, "so many paths that directories were named in their place")
	}
	if !p.Relaying {
		fmt.Fprintln(a.out, "journalled; the hub does not run and relays it when it starts")
	}
	return nil
}

// parseWait reads the N of --wait; 0 stands for all.
func parseWait(s string) (int, error) {
	if s == "" || s == "all" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, usage(fmt.Errorf("--wait=%s: must be a number of mirrors, or all", s), "")
	}
	return n, nil
}
