package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp checks that the help of every command has an example and tells the exit statuses.
func TestHelp(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		var out, errw bytes.Buffer
		if status := run(context.Background(), args, strings.NewReader(""), &out, &errw); status != 0 || errw.Len() > 0 {
			t.Errorf("%v: status %d, %s", args, status, &errw)
		}
		if !strings.Contains(out.String(), "EXIT STATUS") {
			t.Errorf("%v does not tell the exit statuses", args)
		}
		if c.HasParent() && c.Runnable() && !c.HasSubCommands() && !strings.Contains(out.String(), "Examples:") {
			t.Errorf("%v has no example", args)
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check((&app{}).root())
}
