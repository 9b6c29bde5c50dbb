package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
)

func (a *app) verifyCommand() *cobra.Command {
	var checksum bool
	c := &cobra.Command{
		Use:     "verify MODULE",
		GroupID: "mirror",
		Short:   "compare a module's tree with the upstream's manifest",
		Long: `Compares the tree, name by name, with the manifest that the upstream exports: what is missing, modified, of another mode, or extra, within this
mirror's subset. Nothing is changed. With --checksum rsync also compares the content of every file, which both sides read in full.

What was announced after the manifest was exported shows as a difference too. The exit status is 1 if there is any.`,
		Example: "  mirrorbus verify fedora\n  mirrorbus verify fedora --checksum --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			module, err := event.ParseModule(args[0])
			if err != nil {
				return usage(err, "")
			}
			return a.verify(c.Context(), module, checksum)
		},
	}
	c.Flags().BoolVar(&checksum, "checksum", false, "compare content too")
	c.Flags().BoolVar(&a.json, "json", false, "print a line of JSON for each difference")
	return c
}

func (a *app) verify(ctx context.Context, module event.Module, checksum bool) error {
	conf, err := a.mirrorConfig()
	if err != nil {
		return err
	}
	count := 0
	show := func(f daemon.Finding) error {
		count++
		if a.json {
			return json.NewEncoder(a.out).Encode(f)
		}
		_, err := fmt.Fprintf(a.out, "%-9s %s  %s\n", f.Kind, f.Path, f.What)
		return err
	}
	path := "/v1/verify/" + string(module)
	if checksum {
		path += "?checksum=1"
	}
	err = orAlone(string(conf.Socket), func() error {
		return control.NewClient(string(conf.Socket)).Each(ctx, path, func(raw json.RawMessage) error {
			var f daemon.Finding
			if err := json.Unmarshal(raw, &f); err != nil {
				return err
			}
			return show(f)
		})
	}, func() error {
		return a.idle(ctx, conf, func(d *daemon.Daemon) error { return d.Verify(ctx, module, checksum, show) })
	})
	switch {
	case err != nil:
		return err
	case count > 0:
		return fault.With(fmt.Errorf("%s: %s", module, plural(count, "difference")), fault.Failed, "the agent mends what is announced; mirrorbus agent sync looks now")
	case a.json:
		return nil
	}
	_, err = fmt.Fprintf(a.out, "%s is as the manifest says\n", module)
	return err
}
