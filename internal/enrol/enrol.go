// Package enrol makes the keys and configurations with which a master and its mirrors begin to trust each other, in three commands: init master
// prints what to run on a mirror, init mirror prints what to run on the master, and that is it. No secret leaves the host it was made on.
package enrol

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A Module is a unit of mirroring as one side sees it.
type Module struct {
	Name     string `json:"name"`
	Path     string `json:"-"`        // where the tree lies on this host
	Upstream string `json:"upstream"` // where a mirror pulls it from
}

// Master is what init master needs to know.
type Master struct {
	Dir, State, Socket string
	Name               string
	Listen             string // address and port of the hub
	Address            string // host:port at which mirrors reach the hub
	Modules            []Module
}

// Mirror is what init mirror needs to know.
type Mirror struct {
	Dir, State, Socket string
	Name               string
	Join               Join
	Modules            []Module // name and path; the upstream comes from Join unless it is set
}

// InitMaster writes the keys, the trust file and master.toml into m.Dir, and returns the path of the latter and what mirrors need to join.
func InitMaster(m Master) (string, Join, error) {
	if err := checkNames(m.Name, m.Modules); err != nil {
		return "", Join{}, err
	}
	if err := absent(m.Dir, "master.toml", "allowed_signers"); err != nil {
		return "", Join{}, err
	}
	key, err := newKey(filepath.Join(m.Dir, "announce_key"), m.Name)
	if err != nil {
		return "", Join{}, err
	}
	hostKey, err := newKey(filepath.Join(m.Dir, "hub_host_key"), "hub of "+m.Name)
	if err != nil {
		return "", Join{}, err
	}
	trust := "# Whom this master trusts, as an OpenSSH allowed_signers file: ssh-keygen(1), ALLOWED SIGNERS.\n" +
		fmt.Sprintf("%s namespaces=\"announce@mirrorbus,flip@mirrorbus,head@mirrorbus\" %s\n", m.Name, key)
	if err := create(filepath.Join(m.Dir, "allowed_signers"), trust, 0o644); err != nil {
		return "", Join{}, err
	}
	path, err := writeConfig(m.Dir, "master.toml", masterConfig, m)
	join := Join{Hub: m.Address, HubKey: hostKey, Master: m.Name, Key: key, Modules: m.Modules}
	return path, join, err
}

// InitMirror writes the key, the trust file and mirror.toml into m.Dir, and returns the path of the latter and the mirror's public key.
func InitMirror(m Mirror) (path, publicKey string, err error) {
	if err := checkNames(m.Name, m.Modules); err != nil {
		return "", "", err
	}
	if err := m.fillUpstreams(); err != nil {
		return "", "", err
	}
	if err := absent(m.Dir, "mirror.toml", "allowed_masters"); err != nil {
		return "", "", err
	}
	publicKey, err = newKey(filepath.Join(m.Dir, "mirror_key"), m.Name)
	if err != nil {
		return "", "", err
	}
	trust := "# Whom this mirror trusts, as an OpenSSH allowed_signers file: ssh-keygen(1), ALLOWED SIGNERS.\n" +
		fmt.Sprintf("%s namespaces=\"announce@mirrorbus,flip@mirrorbus,head@mirrorbus\" %s\n", m.Join.Master, m.Join.Key)
	if err := create(filepath.Join(m.Dir, "allowed_masters"), trust, 0o644); err != nil {
		return "", "", err
	}
	path, err = writeConfig(m.Dir, "mirror.toml", mirrorConfig, m)
	return path, publicKey, err
}

// checkNames refuses, before anything is written, what the configuration could not hold.
func checkNames(name string, modules []Module) error {
	if _, err := event.ParsePrincipal(name); err != nil {
		return fault.With(err, fault.Usage, "")
	}
	seen := map[string]bool{}
	for _, m := range modules {
		if _, err := event.ParseModule(m.Name); err != nil {
			return fault.With(err, fault.Usage, "")
		}
		if _, err := quote(m.Path); err != nil {
			return fault.With(fmt.Errorf("module %s: path %w", m.Name, err), fault.Usage, "")
		}
		if seen[m.Name] {
			return fault.With(fmt.Errorf("module %s is named twice", m.Name), fault.Usage, "give each module a name of its own")
		}
		seen[m.Name] = true
	}
	return nil
}

func (m *Mirror) fillUpstreams() error {
	for i := range m.Modules {
		for _, offered := range m.Join.Modules {
			if offered.Name == m.Modules[i].Name && m.Modules[i].Upstream == "" {
				m.Modules[i].Upstream = offered.Upstream
			}
		}
		if m.Modules[i].Upstream == "" {
			return fault.With(fmt.Errorf("module %s is not one that the master offers", m.Modules[i].Name), fault.Usage,
				"it offers "+strings.Join(names(m.Join.Modules), ", "))
		}
	}
	return nil
}

func names(modules []Module) []string {
	var all []string
	for _, m := range modules {
		all = append(all, m.Name)
	}
	return all
}

// AddMirror appends a mirror to the master's trust file: its key may sign reports, and nothing else. The file is replaced as a whole. A mirror
// that is there already with this key is left as it is. Of several at once, none is lost.
func AddMirror(trust, name, publicKey string) (err error) {
	if _, err := event.ParsePrincipal(name); err != nil {
		return fault.With(err, fault.Usage, "")
	}
	key, err := parseKey(publicKey)
	if err != nil {
		return fault.With(err, fault.Usage, "give it as `mirrorbus init mirror` printed it: 'ssh-ed25519 AAAA…'")
	}
	release, err := lockDir(filepath.Dir(trust))
	if err != nil {
		return fmt.Errorf("trust file: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	old, err := os.ReadFile(trust)
	if err != nil {
		return fmt.Errorf("trust file: %w", err)
	}
	file, _, err := signers.Parse(bytes.NewReader(old), trust)
	if err != nil {
		return fmt.Errorf("trust file: %w", err)
	}
	for _, e := range file.Entries {
		same := keyLine(e.Key) == keyLine(key)
		switch {
		case e.Principals == name && same:
			return nil
		case e.Principals == name:
			return fault.With(fmt.Errorf("%s has another key for %s already", trust, name), fault.Failed,
				"edit the file if the new one should replace it, or choose another name")
		case same:
			return fault.With(fmt.Errorf("%s has that key for %s already", trust, e.Principals), fault.Failed,
				"each mirror has a key of its own: run mirrorbus init mirror there, do not copy one's folder")
		}
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	return replace(trust, fmt.Appendf(old, "%s namespaces=\"report@mirrorbus\" %s\n", name, keyLine(key)))
}
