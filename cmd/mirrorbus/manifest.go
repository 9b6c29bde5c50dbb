package main

import (
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) manifestCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "manifest MODULE",
		GroupID: "master",
		Short:   "walk a module and build its manifest anew",
		Long: `Walks the whole module and builds its manifest anew. The hub does this by itself once, for a new module, and then keeps the manifest true from
what is announced. Nobody needs it after changes of the tree: use mirrorbus scan, which finds what nobody announced by the manifest, and announces it.
To build the manifest anew takes all that for known and announces nothing, so mirrors that are current do not learn of it. Before it does so it walks the
tree once more, and says in the end what that was. The hub must run.`,
		Example: "  mirrorbus manifest fedora\n  mirrorbus scan fedora          (after changes that nobody announced)",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			live := isTerminal(a.out)
			q := url.Values{"module": {args[0]}}
			return control.NewClient(string(conf.Socket)).Stream(c.Context(), "POST", "/v1/manifest?"+q.Encode(), func(raw json.RawMessage) error {
				var b trigger.Building
				if err := json.Unmarshal(raw, &b); err != nil {
					return err
				}
				switch {
				case live:
					fmt.Fprintf(a.out, "\r%s\x1b[K", b)
				case b.Done:
					fmt.Fprintln(a.out, b)
				}
				if live && b.Done {
					fmt.Fprintln(a.out)
				}
				return nil
			})
		},
	}
}
