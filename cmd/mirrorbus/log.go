package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) logCommand() *cobra.Command {
	var n int
	c := &cobra.Command{
		Use:     "log MODULE",
		GroupID: "master",
		Short:   "list announcements, the newest first",
		Example: "  mirrorbus log fedora\n  mirrorbus log fedora -n 1000 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			module, err := event.ParseModule(args[0])
			if err != nil {
				return usage(err, "")
			}
			var entries []trigger.LogEntry
			q := url.Values{"module": {string(module)}, "n": {strconv.Itoa(n)}}
			err = orAlone(string(conf.Socket), func() error {
				return control.NewClient(string(conf.Socket)).Do(c.Context(), "GET", "/v1/log?"+q.Encode(), nil, &entries)
			}, func() (err error) {
				entries, err = trigger.LogAlone(c.Context(), conf, module, n, a.log())
				return err
			})
			if err != nil {
				return err
			}
			return a.printLog(entries)
		},
	}
	c.Flags().IntVarP(&n, "number", "n", 20, "list the newest `N`")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) printLog(entries []trigger.LogEntry) error {
	if a.json {
		return a.printJSON(entries)
	}
	return table(a.out, func(row func(...any)) {
		row("SERIAL", "KIND", "ANNOUNCED", "RECORDS", "SOURCE")
		for _, e := range entries {
			records := fmt.Sprint(e.Records)
			if e.Records < 0 {
				records = "see the manifest"
			}
			row(e.Serial, e.Kind, e.At.Local().Format(time.DateTime), records, strings.TrimSpace(e.Source+" "+e.Principal))
		}
	})
}
