package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/pelletier/go-toml/v2"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/all"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const (
	masterFile = "/etc/mirrorbus/master.toml"
	mirrorFile = "/etc/mirrorbus/mirror.toml"
)

// configFile is the file to use, given the default ones of the command in the order in which they are looked for.
func (a *app) configFile(defaults ...string) (string, error) {
	if a.config != "" {
		return a.config, nil
	}
	for _, path := range defaults {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fault.With(fmt.Errorf("no configuration: %s is not there", defaults[0]), fault.Config,
		"make one with mirrorbus init, or name it with --config")
}

func (a *app) masterConfig() (*trigger.Config, error) {
	path, err := a.configFile(masterFile)
	if err != nil {
		return nil, err
	}
	c := trigger.Defaults()
	c.Transport = sections(transports.Master)
	return &c, asConfigFault(config.File(path, &c))
}

func (a *app) mirrorConfig() (*listener.Config, error) {
	path, err := a.configFile(mirrorFile)
	if err != nil {
		return nil, err
	}
	c := listener.Defaults()
	c.Transport = sections(transports.Mirror)
	return &c, asConfigFault(config.File(path, &c))
}

// role tells which side the configuration is of: only a mirror grants anything, or takes pushes.
func (a *app) role() (transports.Role, error) {
	path, err := a.configFile(masterFile, mirrorFile)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", asConfigFault(err)
	}
	var file map[string]any
	if toml.Unmarshal(data, &file) == nil && (file["grant"] != nil || knowsNoMaster(file["module"])) {
		return transports.Mirror, nil
	}
	return transports.Master, nil
}

func knowsNoMaster(modules any) bool {
	list, _ := modules.([]any)
	return slices.ContainsFunc(list, func(m any) bool {
		section, _ := m.(map[string]any)
		return section["push"] != nil || section["sync_every"] != nil
	})
}

func sections(role transports.Role) config.Sections {
	s := config.Sections{}
	for _, d := range all.Registry() {
		s[d.Name] = d.Config(role)
	}
	return s
}

func asConfigFault(err error) error {
	hint := ""
	if errors.Is(err, fs.ErrNotExist) {
		hint = "make one with mirrorbus init, or name it with --config"
	}
	return fault.With(err, fault.Config, hint)
}

// log makes the logger: text on standard error; under systemd without the time, which the journal has.
func (a *app) log() *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if a.verbose {
		o.Level = slog.LevelDebug
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, at slog.Attr) slog.Attr {
			if len(groups) == 0 && at.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return at
		}
	}
	return slog.New(slog.NewTextHandler(a.err, o))
}
