package trigger

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/identity"
	"github.com/mirrorbus/mirrorbus/internal/indexes"
	"github.com/mirrorbus/mirrorbus/trigger/filelist"
)

// A Config is the configuration of a master.
type Config struct {
	identity.Config

	HeadEvery config.Duration `toml:"head_every"` // the head is signed anew this often
	HeadTTL   config.Duration `toml:"head_ttl"`   // and holds this long
	AwayAfter config.Duration `toml:"away_after"` // a mirror not heard of for this long is away, and not waited for

	Commanders []CommanderConfig `toml:"commander"` // who may give signed commands
	Modules    []ModuleConfig    `toml:"module"`
	Transport  config.Sections   `toml:"transport"`
}

// A ModuleConfig is one [[module]] of a master.
type ModuleConfig struct {
	Name     string      `toml:"name"`
	Path     config.Path `toml:"path"`     // root of the tree
	Export   config.Path `toml:"export"`   // where .mirrorbus/ is written; in the tree if empty
	Upstream string      `toml:"upstream"` // rsync URL that joining mirrors are told
	Mirrors  []string    `toml:"mirrors"`  // names, or patterns as of path.Match, that may subscribe; all known mirrors if empty

	Lists      []string        `toml:"lists"`       // of filelist.Kinds, for clients that know nothing of mirrorbus
	ListsEvery config.Duration `toml:"lists_every"` // they are written at most this often

	Last []string `toml:"last"` // files that name others, whose content is told by its SHA-256: presets or patterns

	KeepSerials   int             `toml:"keep_serials"`   // announcements kept in the export
	KeepBytes     config.Size     `toml:"keep_bytes"`     // and their size
	ManifestEvery config.Duration `toml:"manifest_every"` // the manifest is exported anew when this old and not current
	ScanEvery     config.Duration `toml:"scan_every"`     // the tree is compared with the manifest this often; never if 0
	PerDirectory  int             `toml:"per_directory"`  // more changed names in one directory are announced as the directory
	MaxPaths      int             `toml:"max_paths"`      // longer path sets name directories instead

	Watch WatchConfig `toml:"watch"` // how mirrorbus watch watches it
}

// Defaults is a Config with every default set.
func Defaults() Config {
	return Config{
		Config:    identity.Config{Name: "master", State: "/var/lib/mirrorbus/master", Socket: "/run/mirrorbus/master.sock"},
		HeadEvery: config.Duration{Duration: 5 * time.Minute},
		HeadTTL:   config.Duration{Duration: 15 * time.Minute},
		AwayAfter: config.Duration{Duration: 15 * time.Minute},
	}
}

func (m *ModuleConfig) fillDefaults() {
	setDefault(&m.KeepSerials, 10_000)
	setDefault(&m.KeepBytes, 1<<30)
	setDefault(&m.ManifestEvery.Duration, time.Hour)
	setDefault(&m.ListsEvery.Duration, 5*time.Minute)
	setDefault(&m.PerDirectory, 1000)
	setDefault(&m.MaxPaths, 1_000_000)
	if len(m.Last) == 0 {
		m.Last = []string{"generic"}
	}
	m.Watch.fillDefaults()
	if m.Export == "" {
		m.Export = m.Path + "/" + event.ExportDir
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Validate checks what the types cannot, and fills the defaults of modules.
func (c *Config) Validate() error {
	for _, d := range []struct {
		key  string
		span config.Duration
	}{{"head_every", c.HeadEvery}, {"away_after", c.AwayAfter}} {
		if d.span.Duration <= 0 {
			return config.Fault(d.key, "must be longer than nothing", `write a number and its unit, as in "5m"`)
		}
	}
	if c.HeadTTL.Duration < 2*c.HeadEvery.Duration {
		return config.Fault("head_ttl", "is less than twice head_every", "then a head that comes a little late has expired; give it three times head_every")
	}
	if len(c.Modules) == 0 {
		return config.Fault("module", "is missing", "add a [[module]] with name and path")
	}
	return c.validateModules()
}

func (c *Config) validateModules() error {
	seen := map[string]bool{}
	for i := range c.Modules {
		m := &c.Modules[i]
		if seen[m.Name] {
			return config.Fault("module", fmt.Sprintf("%s stands twice", m.Name), "give each module a name of its own")
		}
		seen[m.Name] = true
		m.fillDefaults()
	}
	return nil
}

// Validate checks one module.
func (m *ModuleConfig) Validate() error {
	if _, err := event.ParseModule(m.Name); err != nil {
		return config.Fault("name", err.Error(), "")
	}
	for _, pattern := range m.Mirrors {
		if _, err := path.Match(pattern, ""); err != nil {
			return config.Fault("mirrors", fmt.Sprintf("%.80q is no pattern", pattern), `write names, or patterns as in "tier1-*"`)
		}
	}
	for key, n := range map[string]int{"keep_serials": m.KeepSerials, "per_directory": m.PerDirectory, "max_paths": m.MaxPaths} {
		if n < 0 {
			return config.Fault(key, fmt.Sprintf("is %d", n), "write a number from 1, or leave it out")
		}
	}
	if err := m.validateLists(); err != nil {
		return err
	}
	if _, err := m.IsIndex(); err != nil {
		return config.Fault("last", err.Error(), "write presets (rpm, debian, alpine, arch, cpan, generic), or patterns as of rsync's filter rules")
	}
	return config.Require("path", m.Path)
}

func (m *ModuleConfig) validateLists() error {
	for i, kind := range m.Lists {
		if !slices.Contains(filelist.Kinds(), kind) || slices.Contains(m.Lists[:i], kind) {
			return config.Fault("lists", fmt.Sprintf("%.40q is not known, or stands twice", kind), "there are "+strings.Join(filelist.Kinds(), " and "))
		}
	}
	switch {
	case m.ListsEvery.Duration < 0:
		return config.Fault("lists_every", "is less than nothing", `write a number and its unit, as in "5m"`)
	case len(m.Lists) > 0 && m.Export != "" && m.Export != m.Path+"/"+event.ExportDir:
		return config.Fault("lists", "need the export in the tree", "leave out export: lists are written there first, and then put in place by renaming")
	}
	return nil
}

// IsIndex tells which files of the module name others.
func (m *ModuleConfig) IsIndex() (func(path string) bool, error) {
	rules, err := indexes.Rules(indexes.Expand(m.Last))
	if err != nil {
		return nil, err
	}
	return func(path string) bool { return !rules.Included(path, false) }, nil
}
