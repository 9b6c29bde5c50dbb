package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var o demo.Options
	c := &cobra.Command{
		Use:     "demo",
		GroupID: "start",
		Short:   "see it work: a master and three mirrors in a temporary folder",
		Long: `Runs a master with a real rsync daemon and the hub, and three mirrors, in a temporary folder. It publishes content, a deletion, a change of
types and a flip, kills an agent half way, and compares all trees byte by byte. Nothing is left behind; ports are of the loopback address only.

The exit status is 0 only if every tree is identical to the master's.`,
		Example: "  mirrorbus demo\n  mirrorbus demo --tree /usr/share/doc --keep",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			o.Out = a.out
			return demo.Run(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.Tree, "tree", "", "mirror a copy of this `FOLDER` instead of a made-up tree")
	c.Flags().BoolVar(&o.Keep, "keep", false, "leave it running, and the files, until Ctrl-C")
	return c
}
