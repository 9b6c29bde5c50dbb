// Package enrol makes the keys and configurations with which a master and its mirrors begin to trust each other, in three commands: init master
// prints what to run on a mirror, init mirror prints what to run on the master, and that is it. No secret leaves the host it was made on.
package enrol

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
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

// Join is what a mirror must know of a master. All of it is public; what matters is that it comes from the master's administrator.
type Join struct {
	Hub     string   `json:"hub"`     // host:port
	HubKey  string   `json:"hub_key"` // the hub's host key, as an authorized_keys line
	Master  string   `json:"master"`  // principal that announces
	Key     string   `json:"key"`     // its key, as an authorized_keys line
	Modules []Module `json:"modules"`
}

const joinPrefix = "mirrorbus-join1."

// String writes j as one word for a command line.
func (j Join) String() string {
	b, err := json.Marshal(j)
	if err != nil {
		return "" // strings and slices of strings always marshal
	}
	return joinPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseJoin reads what String writes.
func ParseJoin(s string) (Join, error) {
	var j Join
	word, ok := strings.CutPrefix(strings.TrimSpace(s), joinPrefix)
	b, err := base64.RawURLEncoding.DecodeString(word)
	if !ok || err != nil || json.Unmarshal(b, &j) != nil || j.Hub == "" || j.Key == "" || j.HubKey == "" {
		return Join{}, fault.With(errors.New("the join word is damaged"), fault.Usage, "copy it whole from what `mirrorbus init master` or `mirrorbus mirror join` printed")
	}
	return j, nil
}

// InitMaster writes the keys, the trust file and master.toml into m.Dir, and returns the path of the latter and what mirrors need to join.
func InitMaster(m Master) (string, Join, error) {
	if _, err := event.ParsePrincipal(m.Name); err != nil {
		return "", Join{}, fault.With(err, fault.Usage, "")
	}
	if err := absent(m.Dir, "master.toml"); err != nil {
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
	if _, err := event.ParsePrincipal(m.Name); err != nil {
		return "", "", fault.With(err, fault.Usage, "")
	}
	if err := m.fillUpstreams(); err != nil {
		return "", "", err
	}
	if err := absent(m.Dir, "mirror.toml"); err != nil {
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

// AddMirror appends a mirror to the master's trust file: its key may sign reports, and nothing else. The file is replaced as a whole.
func AddMirror(trust, name, publicKey string) error {
	if _, err := event.ParsePrincipal(name); err != nil {
		return fault.With(err, fault.Usage, "")
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil || len(options) > 0 || len(strings.TrimSpace(string(rest))) > 0 {
		return fault.With(errors.New("that is not one public key"), fault.Usage, "give it as `mirrorbus init mirror` printed it: 'ssh-ed25519 AAAA…'")
	}
	old, err := os.ReadFile(trust)
	if err != nil {
		return fmt.Errorf("trust file: %w", err)
	}
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	for line := range strings.Lines(string(old)) {
		if who, _, _ := strings.Cut(line, " "); who == name && strings.Contains(line, text) {
			return nil
		} else if who == name {
			return fault.With(fmt.Errorf("%s has another key for %s already", trust, name), fault.Failed, "edit the file if the new one should replace it, or choose another name")
		}
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	return replace(trust, fmt.Appendf(old, "%s namespaces=\"report@mirrorbus\" %s\n", name, text))
}

func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".mirrorbus-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// newKey makes an ed25519 key in OpenSSH form, path and path.pub, and returns the public half as an authorized_keys line without comment.
// A key that is there already is kept.
func newKey(path, comment string) (string, error) {
	if pub, err := os.ReadFile(path + ".pub"); err == nil {
		key, _, _, _, err := ssh.ParseAuthorizedKey(pub)
		if err != nil {
			return "", fmt.Errorf("%s.pub: %w", path, err)
		}
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), nil
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return "", err
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	if err := create(path, string(pem.EncodeToMemory(block)), 0o600); err != nil {
		return "", err
	}
	return line, create(path+".pub", line+" "+comment+"\n", 0o644)
}

func absent(dir, name string) error {
	path := filepath.Join(dir, name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fault.With(fmt.Errorf("%s is there already", path), fault.Config, "remove it to begin anew, or give another --dir")
	}
	return nil
}

// create writes a new file and never over an old one.
func create(path, data string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fault.With(err, fault.Config, "remove it to begin anew, or give another --dir")
	}
	_, err = f.WriteString(data)
	return errors.Join(err, f.Close())
}

func writeConfig(dir, name, text string, data any) (string, error) {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, create(path, b.String(), 0o644)
}
