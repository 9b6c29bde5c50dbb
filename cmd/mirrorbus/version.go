package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=1.0.0".
var version = "devel"

func (a *app) versionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "version",
		GroupID: "both",
		Short:   "print the version",
		Example: "  mirrorbus version\n  mirrorbus version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			revision := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if a.json {
				return a.printJSON(map[string]string{"version": version, "revision": revision, "go": runtime.Version(), "platform": platform})
			}
			if revision != "" {
				revision = " " + revision
			}
			_, err := fmt.Fprintf(a.out, "mirrorbus %s%s %s %s\n", version, revision, runtime.Version(), platform)
			return err
		},
	}
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}
