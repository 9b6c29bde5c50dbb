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
	"github.com/mirrorbus/mirrorbus/trigger/changelist"
)

type publishOptions struct {
	from      string
	list      changelist.Options
	asFound   bool
	flip      bool
	notBefore string
	mode      string
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

A name that really begins like that is written ./NAME.

--from reads names, or what another tool prints of its changes, in a --format:

  names      one name a line, or ended by NUL (-0), with the prefixes above
  itemize    rsync -i. Names of links that hold an arrow need --out-format='%i %n', and the same as the format
  rsync-log  rsync --log-file=FILE -i, or a daemon's log with "log format = %i %n%L"
  git        git diff --name-status -z OLD NEW
  reprepro   the .outlog that reprepro gives to its --outhook

All of a list is read before anything is announced; a line that is not understood is an error. What tools print was true when they did, so names of all
formats but the first are announced --as-found: as they are now, what is gone as gone. createrepo_c and aptly print no such list: mirrorbus scan finds
what they changed. Ready-made hooks are in deploy/hooks.

A flip with --not-before is called off, until its time, by another announcement of its paths: publish --flip PATH says that they stay as they are. With --mode
the master's tree stays closed until then too, and is opened there at that time by whoever runs it, with another publish --flip; else what is announced
meanwhile below a directory that is open on the master opens it on mirrors.`,
		Example: `  mirrorbus publish fedora releases/43/README releases/43/Everything/x86_64/os/repodata
  mirrorbus publish fedora --wait=all --timeout 5m -- updates/43 -updates/42
  find . -newer .stamp -type f -print0 | mirrorbus publish fedora --from - -0
  rsync -ai --delete build/ /srv/fedora/updates/ >changes && mirrorbus publish fedora --from changes --format itemize --base updates
  git diff --name-status -z ORIG_HEAD HEAD | mirrorbus publish docs --from - --format git
  mirrorbus publish fedora --flip releases/43 --mode 0755 --not-before 2026-11-24T14:00:00Z`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("as-found") {
				o.asFound = o.from != "" && o.list.Outdated() && !o.flip
			}
			return a.publish(c.Context(), o, args)
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (o *publishOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.from, "from", "", "read names from `FILE`, one a line; - is standard input")
	c.Flags().StringVar(&o.list.Format, "format", changelist.Names, "what --from holds: names, itemize, rsync-log, git, reprepro, or rsync's own `FORMAT`")
	c.Flags().BoolVarP(&o.list.NUL, "null", "0", false, "names in --from end with NUL instead of a line end")
	c.Flags().StringVar(&o.list.Base, "base", "", "names in --from are relative to `DIR` of the module")
	c.Flags().StringVar(&o.list.Strip, "strip", "", "names in --from begin with `DIR`, which is left out")
	c.Flags().BoolVar(&o.asFound, "as-found", false, "names are of what may have changed: announce them as they are now, what is gone as gone, and nothing if nothing is left")
	c.Flags().BoolVar(&o.flip, "flip", false, "only metadata changed, of content that mirrors have: overtakes everything else")
	c.Flags().StringVar(&o.notBefore, "not-before", "", "with --flip: mirrors apply it at `TIME` (RFC 3339), not earlier")
	c.Flags().StringVar(&o.mode, "mode", "", "with --not-before: the permissions that the paths get then, in `OCTAL`; without it those that they have now")
	c.Flags().DurationVar(&o.expires, "expires", 24*time.Hour, "with --flip: mirrors that cannot apply it for this `LONG` after its time leave it")
	c.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be announced")
	c.Flags().StringVar(&o.wait, "wait", "", "wait until `N` mirrors, or all that are not away, have applied it")
	c.Flags().Lookup("wait").NoOptDefVal = "all"
	c.Flags().DurationVar(&o.timeout, "timeout", 10*time.Minute, "wait this `LONG` at most, then exit with 75")
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
	if len(req.Names) == 0 { // a list of a tool that changed nothing
		return a.printPublished(trigger.Published{Schema: trigger.Schema, Module: req.Module, Kind: event.Change}, o)
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
	if err := a.printPublished(done, o); err != nil || o.dryRun || o.wait == "" || done.Serial == 0 && done.Held.IsZero() {
		return err
	}
	return a.waitFor(ctx, client, done, o.wait, o.timeout)
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
	} else if err := o.listOnly(); err != nil {
		return trigger.Request{}, err
	}
	if len(names) == 0 && !(o.from != "" && o.asFound) {
		return trigger.Request{}, usage(errors.New("nothing to announce"), "name paths, or give a list with --from")
	}
	req := trigger.NewRequest(module, names)
	req.DryRun, req.Source, req.AsFound = o.dryRun, "publish", o.asFound
	return req, o.schedule(&req)
}

// listOnly refuses what says how to read a list if there is none.
func (o publishOptions) listOnly() error {
	for option, given := range map[string]bool{"-0": o.list.NUL, "--format": o.list.Format != changelist.Names, "--base": o.list.Base != "", "--strip": o.list.Strip != ""} {
		if given {
			return usage(fmt.Errorf("%s without --from", option), "add --from FILE, or --from - for standard input")
		}
	}
	return nil
}

func (o publishOptions) schedule(req *trigger.Request) error {
	if !o.flip {
		if o.notBefore != "" {
			return usage(errors.New("--not-before without --flip"), "only a flip can wait for its time")
		}
		if o.mode != "" {
			return usage(errors.New("--mode without --flip"), "it is for a flip that waits for its time")
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
	if o.mode != "" {
		mode, err := strconv.ParseUint(o.mode, 8, 12)
		if err != nil || mode == 0 {
			return usage(fmt.Errorf("--mode %q: not permissions in octal", o.mode), "for example 0755")
		}
		req.Mode = uint32(mode)
	}
	from := time.Now()
	if req.NotBefore.After(from) {
		from = req.NotBefore
	}
	req.Expires = from.Add(o.expires)
	return nil
}

func (a *app) readNames(o publishOptions) (_ []trigger.Name, err error) {
	if err := o.list.Check(); err != nil {
		return nil, usage(err, "mirrorbus publish --help tells the formats")
	}
	in := a.in
	if o.from != "-" {
		f, err := os.Open(o.from)
		if err != nil {
			return nil, usage(err, "name a file that can be read, or - for standard input")
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = io.Reader(f)
	}
	names, err := changelist.Read(in, o.list)
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
	if !p.Held.IsZero() {
		_, err := fmt.Fprintf(a.out, "%s: %s kept until the compose under way ends, at %s at the latest\n", p.Module, plural(p.Records, "record"), p.Held.UTC().Format(time.RFC3339))
		return err
	}
	if p.Serial == 0 {
		_, err := fmt.Fprintf(a.out, "%s: nothing has changed, nothing was announced\n", p.Module)
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
