package listener_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/listener"
)

// What is wrong with settings of pushes and trace files is said with their key; a mirror of which every module is pushed so needs no grant.
func TestConfigurationOfPushes(t *testing.T) {
	module := func(name string, push ...string) listener.ModuleConfig {
		return listener.ModuleConfig{Name: name, Path: "/srv/" + "x", Upstream: "rsync://up/" + name, Push: push}
	}
	synced := module("s")
	synced.SyncEvery.Duration = time.Hour
	grant := listener.GrantConfig{Principal: "master", Modules: []string{"*"}}
	for name, c := range map[string]struct {
		conf listener.Config
		says string
	}{
		"pushed, no grant":        {listener.Config{Modules: []listener.ModuleConfig{module("a", "a"), module("b", "b", "")}}, ""},
		"synced, no grant":        {listener.Config{Modules: []listener.ModuleConfig{synced}}, ""},
		"one is not pushed":       {listener.Config{Modules: []listener.ModuleConfig{module("a", "a"), module("b")}}, "grant"},
		"an archive of two":       {listener.Config{Grants: []listener.GrantConfig{grant}, Modules: []listener.ModuleConfig{module("a", "x"), module("b", "x")}}, "push"},
		"an archive of one twice": {listener.Config{Modules: []listener.ModuleConfig{module("a", "x", "x")}}, "push"},
	} {
		err := c.conf.Validate()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		change func(*listener.ModuleConfig)
		says   string
	}{
		"an archive with a path":   {func(m *listener.ModuleConfig) { m.Push = []string{"../x"} }, "push"},
		"an archive of two words":  {func(m *listener.ModuleConfig) { m.Push = []string{"x sync:all"} }, "push"},
		"a trace that leads away":  {func(m *listener.ModuleConfig) { m.Trace = "../x" }, "trace"},
		"the master's own trace":   {func(m *listener.ModuleConfig) { m.Trace = "master" }, "trace"},
		"a trace and linked parts": {func(m *listener.ModuleConfig) { m.Trace, m.FollowLinks = "mirror1", []string{"iso"} }, "follow_links"},
	} {
		m := module("a")
		c.change(&m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
