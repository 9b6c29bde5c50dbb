package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source"
)

func (a *app) scanCommand() *cobra.Command {
	var r trigger.ScanRequest
	c := &cobra.Command{
		Use:     "scan MODULE [DIR…]",
		GroupID: "master",
		Short:   "find what changed in a module, and announce it",
		Long: `Walks a module, or only the directories named and what is below them, compares it with the manifest, and announces what differs: what was
added, changed, removed, or changed in its mode only, and directories that were renamed. What was announced already is not announced again.

A name is unchanged if its type, mode, size and time are. So a change that leaves size and time as they were is not seen: publish it by name.

A scan fails, and announces nothing, where it could take what it cannot see for removed: if something in the tree cannot be read, if the tree is empty, or if
other file systems are mounted in it than when the manifest was built. If that is meant, --moved believes it.

The hub scans by itself if the module's scan_every is set. While no hub runs, what is found is journalled, and relayed when one starts.`,
		Example: `  mirrorbus scan fedora
  mirrorbus scan fedora updates/43 --dry-run
  mirrorbus scan fedora --moved`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.scan(c.Context(), r, args) },
	}
	c.Flags().BoolVarP(&r.DryRun, "dry-run", "n", false, "show what would be announced")
	c.Flags().BoolVar(&r.Moved, "moved", false, "the tree lies on another file system than before, or others are mounted in it")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON, a line for each step")
	return c
}

func (a *app) scan(ctx context.Context, r trigger.ScanRequest, args []string) error {
	conf, err := a.masterConfig()
	if err != nil {
		return err
	}
	if r.Module, err = event.ParseModule(args[0]); err != nil {
		return usage(err, "")
	}
	for _, arg := range args[1:] {
		dir := strings.TrimPrefix(arg, "./")
		if len(dir) > 1 {
			dir = strings.TrimSuffix(dir, "/")
		}
		if err := event.CheckPath(dir); err != nil {
			return usage(err, "name directories relative to the module")
		}
		r.Dirs = append(r.Dirs, []byte(dir))
	}
	v := scanView{app: a, live: !a.json && isTerminal(a.out), dry: r.DryRun}
	remote := source.Remote{Client: control.NewClient(string(conf.Socket))}
	err = orAlone(string(conf.Socket), func() error { return remote.Scan(ctx, r, v.show) }, func() error {
		return trigger.ScanAlone(ctx, conf, r, a.log(), v.show)
	})
	return errors.Join(err, v.end())
}

// A scanView shows how far a scan is, on one line of a terminal, and what it found.
type scanView struct {
	*app
	live, dry, drawn bool
}

func (v *scanView) show(s trigger.Scanned) error {
	switch {
	case v.json:
		return json.NewEncoder(v.out).Encode(s)
	case v.live:
		v.drawn = true
		_, err := fmt.Fprintf(v.out, "\r%s\x1b[K", s.Building)
		if err != nil || !s.Done {
			return err
		}
		v.drawn = false
		fmt.Fprintln(v.out)
	case s.Done:
		fmt.Fprintln(v.out, s.Building)
	default:
		return nil
	}
	fmt.Fprintln(v.out, s.Found)
	if s.Published == nil {
		return nil
	}
	return v.printPublished(*s.Published, publishOptions{dryRun: v.dry})
}

// end leaves the line of a scan that did not come to its end.
func (v *scanView) end() error {
	if !v.drawn {
		return nil
	}
	_, err := fmt.Fprintln(v.out)
	return err
}
