package ssh

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
)

// A MasterConfig configures the master side.
type MasterConfig struct {
	Mirrors []MirrorAddress `toml:"mirror"`

	// User is whom to be on the mirrors.
	User string `toml:"user"`

	// Keys are files of private keys without a passphrase. A certificate in the file of the same name and -cert.pub is shown first.
	Keys []config.Path `toml:"keys"`

	// Agent lets the ssh-agent of SSH_AUTH_SOCK sign as well.
	Agent bool `toml:"agent"`

	// KnownHosts is a file in the format of OpenSSH that holds the mirrors' host keys, or the authority that has signed them.
	KnownHosts config.Path `toml:"known_hosts"`

	// Parallel is how many connections may be on their way to being made at the same time.
	Parallel int `toml:"parallel"`

	DialTimeout  config.Duration `toml:"dial_timeout"`  // to connect, authenticate and be told what the mirror has
	Keepalive    config.Duration `toml:"keepalive"`     // how often a mirror is asked whether it is there, and how long it has for the answer
	WriteTimeout config.Duration `toml:"write_timeout"` // how long a mirror may take nothing while something waits for it
	RetryMax     config.Duration `toml:"retry_max"`     // the longest wait before a mirror is called again
	QueueSize    config.Size     `toml:"queue_size"`    // how much may wait for one mirror in memory; one that falls further behind is closed and resumes

	// StageWait is how long a mirror that is pushed in stages waits for others that are still at their first.
	StageWait config.Duration `toml:"stage_wait"`
}

// A MirrorAddress is where one mirror is called.
type MirrorAddress struct {
	Name    string        `toml:"name"`     // as in the trust file
	Address string        `toml:"address"`  // "host:port" of its sshd
	User    string        `toml:"user"`     // in place of the one for all
	Keys    []config.Path `toml:"keys"`     // likewise
	HostKey string        `toml:"host_key"` // its public key or fingerprint, in place of known_hosts

	Speaks   string   `toml:"speaks"`   // "mirrorbus", or "ftpsync" for one that runs that and is told that an archive has changed
	Archives []string `toml:"archives"` // ftpsync: the modules, each as MODULE or as MODULE=ARCHIVE
	Push     string   `toml:"push"`     // ftpsync: "all", "staged" or "mhop", as in runmirrors.mirror
}

// What a mirror may speak; "" is the first.
const (
	speaksMirrorbus = "mirrorbus"
	speaksFtpsync   = "ftpsync"
)

// DefaultMasterConfig returns the defaults; the mirrors have none.
func DefaultMasterConfig() *MasterConfig {
	seconds := func(n int) config.Duration { return config.Duration{Duration: time.Duration(n) * time.Second} }
	return &MasterConfig{
		User: "mirrorbus", Parallel: 16, DialTimeout: seconds(20), Keepalive: seconds(20), WriteTimeout: seconds(60), RetryMax: seconds(60), QueueSize: 16 << 20,
		StageWait: seconds(600),
	}
}

// Validate implements config.Validator.
func (c *MasterConfig) Validate() error {
	if len(c.Mirrors) == 0 {
		return config.Fault("mirror", "is missing", "add a [[transport.ssh.mirror]] with name and address for each mirror that is to be called")
	}
	seen := map[string]bool{}
	for _, m := range c.Mirrors {
		if seen[m.Name] {
			return config.Fault("mirror", fmt.Sprintf("%s stands twice", m.Name), "give each mirror once")
		}
		seen[m.Name] = true
		if err := c.checkMirror(m); err != nil {
			return err
		}
	}
	errs := []error{config.Require("queue_size", c.QueueSize)}
	if c.Parallel < 1 {
		errs = append(errs, config.Fault("parallel", fmt.Sprintf("is %d", c.Parallel), "write a number from 1"))
	}
	for key, d := range map[string]config.Duration{
		"dial_timeout": c.DialTimeout, "keepalive": c.Keepalive, "write_timeout": c.WriteTimeout, "retry_max": c.RetryMax, "stage_wait": c.StageWait,
	} {
		if d.Duration <= 0 {
			errs = append(errs, config.Fault(key, "must be longer than nothing", `write a number and its unit, as in "20s"`))
		}
	}
	return errors.Join(errs...)
}

func (c *MasterConfig) checkMirror(m MirrorAddress) error {
	switch {
	case len(m.Keys) == 0 && len(c.Keys) == 0 && !c.Agent:
		return config.Fault("keys", "is missing", "write the files of the private keys that the mirrors let in, or agent = true")
	case m.User == "" && c.User == "":
		return config.Fault("user", "is missing", "write whom to be on the mirrors")
	case m.HostKey == "" && c.KnownHosts == "":
		return config.Fault("known_hosts", "is missing, and mirror "+m.Name+" has no host_key", "write the file that `ssh-keyscan` of the mirrors went into, once you have checked it")
	}
	return nil
}

// Validate implements config.Validator.
func (m *MirrorAddress) Validate() error {
	if err := config.Require("name", m.Name); err != nil {
		return err
	}
	if host, port, err := net.SplitHostPort(m.Address); err != nil || host == "" || port == "" {
		return config.Fault("address", fmt.Sprintf("%.100q is no host and port", m.Address), `write it as in "mirror1.example.org:22"`)
	}
	switch {
	case m.Speaks != "" && m.Speaks != speaksMirrorbus && m.Speaks != speaksFtpsync:
		return config.Fault("speaks", fmt.Sprintf("%.40q is not known", m.Speaks), `write "mirrorbus" or "ftpsync"`)
	case m.Speaks == speaksFtpsync && len(m.Archives) == 0:
		return config.Fault("archives", "is missing", `write the modules that this mirror has, as in archives = ["debian", "security=debian-security"]`)
	case m.Speaks != speaksFtpsync && len(m.Archives) > 0:
		return config.Fault("archives", "is for mirrors that run ftpsync", `write speaks = "ftpsync", or leave it out: other mirrors say themselves what they have`)
	}
	if !slices.Contains([]string{"", pushAll, pushStaged, pushMhop}, m.Push) {
		return config.Fault("push", fmt.Sprintf("%.40q is not known", m.Push), `write "all", "staged" or "mhop"`)
	}
	if m.Speaks != speaksFtpsync && m.Push != "" && m.Push != pushAll {
		return config.Fault("push", "is for mirrors that run ftpsync", `write speaks = "ftpsync", or leave it out`)
	}
	for _, text := range m.Archives {
		if _, err := parseArchive(text); err != nil {
			return config.Fault("archives", err.Error(), "write MODULE, or MODULE=ARCHIVE if the mirror's archive has another name")
		}
	}
	return nil
}

// A MirrorConfig configures the mirror side.
type MirrorConfig struct {
	// Socket is where `mirrorbus receive` finds the agent, for the agent's user and group. Who may open it may hand over messages, and do nothing else.
	Socket config.Path `toml:"socket"`

	// MaxSessions is how many may be handing over at the same time.
	MaxSessions int `toml:"max_sessions"`

	// WriteTimeout is how long the other side may take nothing, or stop in the middle of a message.
	WriteTimeout config.Duration `toml:"write_timeout"`
}

// DefaultMirrorConfig returns the defaults.
func DefaultMirrorConfig() *MirrorConfig {
	return &MirrorConfig{Socket: "/run/mirrorbus/receive.sock", MaxSessions: 64, WriteTimeout: config.Duration{Duration: time.Minute}}
}

// Validate implements config.Validator.
func (c *MirrorConfig) Validate() error {
	errs := []error{config.Require("socket", c.Socket)}
	if c.MaxSessions < 1 {
		errs = append(errs, config.Fault("max_sessions", fmt.Sprintf("is %d", c.MaxSessions), "write a number from 1"))
	}
	if c.WriteTimeout.Duration <= 0 {
		errs = append(errs, config.Fault("write_timeout", "must be longer than nothing", `write a number and its unit, as in "20s"`))
	}
	return errors.Join(errs...)
}
