package trigger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func TestConfigRefuses(t *testing.T) {
	m := newMaster(t)
	for want, change := range map[string]func(*trigger.Config){
		"name":       func(c *trigger.Config) { c.Name = "two words" },
		"key":        func(c *trigger.Config) { c.Key = "" },
		"trust":      func(c *trigger.Config) { c.Trust += "x" },
		"head_every": func(c *trigger.Config) { c.HeadEvery = config.Duration{} },
		"away_after": func(c *trigger.Config) { c.AwayAfter = config.Duration{Duration: -time.Second} },
		"head_ttl":   func(c *trigger.Config) { c.HeadTTL = c.HeadEvery },
		"module":     func(c *trigger.Config) { c.Modules = nil },
		"twice":      func(c *trigger.Config) { c.Modules = append(c.Modules, c.Modules[0]) },
	} {
		c := m.conf
		change(&c)
		if err := errors.Join(c.Config.Validate(), c.Validate()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, change := range map[string]func(*trigger.ModuleConfig){
		"name":                                   func(c *trigger.ModuleConfig) { c.Name = "UPPER" },
		"path":                                   func(c *trigger.ModuleConfig) { c.Path = "" },
		"mirrors":                                func(c *trigger.ModuleConfig) { c.Mirrors = []string{"tier1-["} },
		"keep_serials":                           func(c *trigger.ModuleConfig) { c.KeepSerials = -1 },
		"per_directory":                          func(c *trigger.ModuleConfig) { c.PerDirectory = -1 },
		"max_paths":                              func(c *trigger.ModuleConfig) { c.MaxPaths = -1 },
		`"recent" is not known, or stands twice`: func(c *trigger.ModuleConfig) { c.Lists = []string{"recent"} },
		`"RECENT" is not known, or stands twice`: func(c *trigger.ModuleConfig) { c.Lists = []string{"RECENT", "RECENT"} },
		"need the export in the tree":            func(c *trigger.ModuleConfig) { c.Lists, c.Export = []string{"RECENT"}, "/elsewhere" },
		"lists_every":                            func(c *trigger.ModuleConfig) { c.ListsEvery = config.Duration{Duration: -1} },
	} {
		c := m.conf.Modules[0]
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, change := range map[string]func(*trigger.WatchConfig){
		"backend":   func(c *trigger.WatchConfig) { c.Backend = "magic" },
		"hot_after": func(c *trigger.WatchConfig) { c.HotAfter = -1 },
		"at_most":   func(c *trigger.WatchConfig) { c.AtMost = config.Duration{Duration: 1} },
		"filter":    func(c *trigger.WatchConfig) { c.Filter = []string{"- a", "x b"} },
		"rules":     func(c *trigger.WatchConfig) { c.Rules = []string{"-f("} },
	} {
		c := m.conf.Modules[0].Watch
		if err := c.Validate(); err != nil {
			t.Fatalf("the default: %v", err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("watch: %s: %v", want, err)
		}
	}
	if c := trigger.Defaults(); c.State != "/var/lib/mirrorbus/master" { // as init writes it
		t.Errorf("the state folder is %s by default", c.State)
	}
}
