package enrol

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// newKey makes an ed25519 key in OpenSSH form, path and path.pub, and returns the public half as an authorized_keys line without comment.
// A key that is there already is kept.
func newKey(path, comment string) (string, error) {
	if _, err := os.Lstat(path); err == nil {
		signer, err := signers.LoadSigner(path)
		if err != nil {
			return "", fault.With(err, fault.Config, "")
		}
		return keyLine(signer.PublicKey()), nil
	}
	if err := absent(filepath.Dir(path), filepath.Base(path)+".pub"); err != nil {
		return "", err
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return "", err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", err
	}
	if err := create(path, string(pem.EncodeToMemory(block)), 0o600); err != nil {
		return "", err
	}
	return keyLine(key), create(path+".pub", keyLine(key)+" "+comment+"\n", 0o644)
}

// keyLine is key as an authorized_keys line without comment.
func keyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// parseKey reads one public key, with or without a comment. It must be one line, since what the library takes for a comment before it could be
// a line of its own in a trust file.
func parseKey(s string) (ssh.PublicKey, error) {
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil || len(options) > 0 || strings.ContainsAny(strings.TrimSpace(s), "\r\n") {
		return nil, fmt.Errorf("%.60q is not one public key", s)
	}
	return key, nil
}

// absent makes sure that none of the files is there, before any is written.
func absent(dir string, names ...string) error {
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return taken(filepath.Join(dir, name))
		}
	}
	return nil
}

func taken(path string) error {
	return fault.With(fmt.Errorf("%s is there already", path), fault.Config, "remove it to begin anew, or give another --dir")
}

// create writes a new file and never over an old one.
func create(path, data string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fault.With(err, fault.Config, "")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return taken(path)
	}
	if err != nil {
		return fault.With(err, fault.Config, "run it as a user who may write there, or give another --dir")
	}
	_, err = f.WriteString(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// lockDir waits until no other process changes a file of the folder that is locked so.
func lockDir(dir string) (release func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f.Close, nil
}

// replace puts data in the place of the file path at once.
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

func writeConfig(dir, name, text string, data any) (string, error) {
	t, err := template.New(name).Funcs(template.FuncMap{"toml": quote}).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, data); err != nil {
		return "", fault.With(err, fault.Usage, "")
	}
	path := filepath.Join(dir, name)
	return path, create(path, b.String(), 0o644)
}

// quote writes s as a TOML basic string, whose escapes are not quite those of Go.
func quote(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%q is not UTF-8, as a configuration must be", s)
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString("\\" + string(r))
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	return `"` + b.String() + `"`, nil
}
