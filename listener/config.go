package listener

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/identity"
	"github.com/mirrorbus/mirrorbus/listener/trace"
)

// A Config is the configuration of a mirror.
type Config struct {
	identity.Config

	Rsync string `toml:"rsync"` // the program

	LookEvery config.Duration `toml:"look_every"` // with no news for this long the agent looks at the upstream's head by itself
	LookLeast config.Duration `toml:"look_least"` // after news that no transport brought it looks again so soon; each look without doubles that
	HaveEvery config.Duration `toml:"have_every"` // says where it stands this often, so that the master knows it lives
	ClockSkew config.Duration `toml:"clock_skew"` // difference of clocks to forgive where freshness is judged; order never depends on clocks

	Grants    []GrantConfig   `toml:"grant"`
	Modules   []ModuleConfig  `toml:"module"`
	Transport config.Sections `toml:"transport"`
}

// A GrantConfig lets a principal of the trust file announce modules.
type GrantConfig struct {
	Principal string       `toml:"principal"`
	Modules   []string     `toml:"modules"` // names, or patterns as of path.Match
	Kinds     []event.Kind `toml:"kinds"`   // change, flip, head
}

// A ModuleConfig is one [[module]] of a mirror.
type ModuleConfig struct {
	Name         string      `toml:"name"`
	Path         config.Path `toml:"path"`          // root of the mirrored tree
	Upstream     string      `toml:"upstream"`      // rsync://host/module or host:/path
	PasswordFile config.Path `toml:"password_file"` // rsync password
	RemoteShell  []string    `toml:"remote_shell"`  // for host:/path upstreams; ssh if empty
	Filter       []string    `toml:"filter"`        // this mirror's subset: rsync filter rules
	Last         []string    `toml:"last"`          // what names other files and comes after them: presets or patterns

	Owner       bool            `toml:"owner"`         // keep owner and group; needs root
	UnsafeLinks bool            `toml:"unsafe_links"`  // take symbolic links that leave the tree
	FollowLinks []string        `toml:"follow_links"`  // symbolic links of this mirror, to directories outside the tree, that hold part of it
	TempDir     config.Path     `toml:"temp_dir"`      // on the file system of path and outside it; beside it if empty
	BWLimit     config.Rate     `toml:"bwlimit"`       // bytes a second; 0 is no limit
	Stall       config.Duration `toml:"stall_timeout"` // rsync that moves no byte for this long is ended and tried again
	NoExport    bool            `toml:"no_export"`     // do not carry .mirrorbus/ on for a tier below

	MaxDelete      int             `toml:"max_delete"`       // a batch that removes more names is held for confirmation
	MaxDeleteRatio float64         `toml:"max_delete_ratio"` // likewise, of the module's names; 0.2 is a fifth
	FullEvery      config.Duration `toml:"full_every"`       // at most one full rsync in this time
	SyncEvery      config.Duration `toml:"sync_every"`       // an upstream that exports no .mirrorbus/ is looked through as a whole so often; 0: not by itself

	Push      []string        `toml:"push"`       // names of the archive in pushes that do not say what has changed; "" for those that name none
	PushEvery config.Duration `toml:"push_every"` // for such pushes everything is looked through four times at once, and then once in this time

	Trace string `toml:"trace"` // name of a trace file to write below project/trace, as Debian's mirrors have one; none if empty

	Exec        []string        `toml:"exec"` // run this instead of rsync: paths on standard input, NUL-separated
	Pre         []string        `toml:"pre"`  // command before a batch; if it fails the batch is tried again later
	Post        []string        `toml:"post"` // command after a batch
	HookTimeout config.Duration `toml:"hook_timeout"`
}

// Defaults is a Config with every default set.
func Defaults() Config {
	return Config{
		Config:    identity.Config{State: "/var/lib/mirrorbus/mirror", Socket: "/run/mirrorbus/mirror.sock"},
		Rsync:     "rsync",
		LookEvery: config.Duration{Duration: 10 * time.Minute},
		LookLeast: config.Duration{Duration: time.Minute},
		HaveEvery: config.Duration{Duration: 5 * time.Minute},
		ClockSkew: config.Duration{Duration: 5 * time.Minute},
	}
}

func (m *ModuleConfig) fillDefaults() {
	setDefault(&m.Stall.Duration, 5*time.Minute)
	setDefault(&m.MaxDelete, 10_000)
	setDefault(&m.MaxDeleteRatio, 0.2)
	setDefault(&m.FullEvery.Duration, 6*time.Hour)
	setDefault(&m.PushEvery.Duration, time.Minute)
	setDefault(&m.HookTimeout.Duration, 5*time.Minute)
	if len(m.Last) == 0 {
		m.Last = []string{"generic"}
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
	told := func(m ModuleConfig) bool { return len(m.Push) == 0 && m.SyncEvery.Duration == 0 }
	if len(c.Grants) == 0 && (len(c.Modules) == 0 || slices.ContainsFunc(c.Modules, told)) {
		return config.Fault("grant", "is missing", "add a [[grant]] that says who may announce which modules")
	}
	if len(c.Modules) == 0 {
		return config.Fault("module", "is missing", "add a [[module]] with name, path and upstream")
	}
	seen, archives := map[string]bool{}, map[string]bool{}
	for i := range c.Modules {
		m := &c.Modules[i]
		if seen[m.Name] {
			return config.Fault("module", fmt.Sprintf("%s stands twice", m.Name), "give each module a name of its own")
		}
		seen[m.Name] = true
		for _, a := range m.Push {
			if archives[a] {
				return config.Fault("push", fmt.Sprintf("%q stands twice", a), "give each archive to one module")
			}
			archives[a] = true
		}
		m.fillDefaults()
	}
	return nil
}

// Validate checks one module.
func (m *ModuleConfig) Validate() error {
	if _, err := event.ParseModule(m.Name); err != nil {
		return config.Fault("name", err.Error(), "")
	}
	if err := config.Require("path", m.Path); err != nil {
		return err
	}
	if len(m.Exec) == 0 {
		if err := config.Require("upstream", m.Upstream); err != nil {
			return err
		}
	}
	for _, a := range m.Push {
		if !IsArchive(a) {
			return config.Fault("push", fmt.Sprintf("%.80q is no name of an archive", a), `write letters, digits, ".", "_" and "-", at most 64; or "" for pushes that name none`)
		}
	}
	switch {
	case m.Trace != "" && !trace.Valid(m.Trace):
		return config.Fault("trace", fmt.Sprintf("%.80q is no name of a trace file", m.Trace), "write the name of this host")
	case m.Trace != "" && len(m.FollowLinks) > 0:
		return config.Fault("trace", "does not go with follow_links", "leave one of them out")
	}
	if _, err := filter.Parse(m.Filter); err != nil {
		return config.Fault("filter", err.Error(), "the rules are those of rsync(1), FILTER RULES")
	}
	return nil
}

// IsArchive tells whether a push may name an archive so, or not name one.
func IsArchive(name string) bool {
	return len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// Validate checks one grant.
func (g *GrantConfig) Validate() error {
	if err := config.Require("principal", g.Principal); err != nil {
		return err
	}
	if err := config.Require("modules", g.Modules); err != nil {
		return err
	}
	for _, k := range g.Kinds {
		if k != event.Change && k != event.Flip && k != event.HeadIs {
			return config.Fault("kinds", fmt.Sprintf("%q is not a kind", k), "the kinds are change, flip and head")
		}
	}
	if len(g.Kinds) == 0 {
		g.Kinds = []event.Kind{event.Change, event.Flip, event.HeadIs}
	}
	return nil
}
