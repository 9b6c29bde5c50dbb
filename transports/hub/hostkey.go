package hub

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// maxKeyFile is more bytes than any private key has.
const maxKeyFile = 64 << 10

// LoadHostKey reads the hub's private key from a file without a passphrase. It refuses a file that others than its owner can read.
func LoadHostKey(path string) (ssh.Signer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("host key: %w; `mirrorbus init master` makes one", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("host key %s can be read by others (mode %04o): chmod 600 %[1]s", path, mode)
	}
	pem, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("host key %s has a passphrase: a daemon cannot type it, take it off with ssh-keygen -p -f %[1]s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w", path, err)
	}
	return key, nil
}

// ErrHostKey is wrapped by the error of a client that met another hub than the one it was told to trust.
var ErrHostKey = errors.New("the hub has another host key than expected")

const hostKeyRemedy = "if the master's operator says that its key was replaced, configure the new one; if not, somebody is in between"

// A pin is how a client recognises the hub.
type pin struct {
	want  []string // fingerprints; any of them will do
	first []string // host key algorithms to prefer, as the hub may have several keys; nil: no preference
}

// parsePin reads a public key or a fingerprint.
func parsePin(text string) (pin, error) {
	text = strings.TrimSpace(text)
	if sum, ok := strings.CutPrefix(text, "SHA256:"); ok {
		if len(sum) != 43 {
			return pin{}, errors.New("a fingerprint is SHA256: and 43 characters")
		}
		return pin{want: []string{text}}, nil
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(rest) > 0 {
		return pin{}, errors.New("is neither one public key nor a fingerprint")
	}
	return pinKeys(key), nil
}

func pinKeys(keys ...ssh.PublicKey) pin {
	var p pin
	for _, key := range keys {
		p.want = append(p.want, ssh.FingerprintSHA256(key))
		if key.Type() == ssh.KeyAlgoRSA {
			p.first = append(p.first, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			p.first = append(p.first, key.Type())
		}
	}
	return p
}

// knownPin looks the address up in a known_hosts file. The library tells which keys it wants when it is shown one that it does not.
func knownPin(file, address string) (pin, error) {
	check, err := knownhosts.New(file)
	if err != nil {
		return pin{}, fmt.Errorf("known hosts: %w", err)
	}
	var wrong *knownhosts.KeyError
	err = check(address, &net.TCPAddr{IP: net.IPv4zero}, noKey{})
	if !errors.As(err, &wrong) || len(wrong.Want) == 0 {
		return pin{}, fmt.Errorf("%s has no key for %s: add the line that `mirrorbus init master` printed on the master", file, knownhosts.Normalize(address))
	}
	var keys []ssh.PublicKey
	for _, k := range wrong.Want {
		keys = append(keys, k.Key)
	}
	return pinKeys(keys...), nil
}

// check implements ssh.HostKeyCallback.
func (p pin) check(address string, _ net.Addr, key ssh.PublicKey) error {
	got := ssh.FingerprintSHA256(key)
	for _, want := range p.want {
		if subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1 {
			return nil
		}
	}
	return fmt.Errorf("%w: %s shows %s, expected is %s; %s", ErrHostKey, address, got, strings.Join(p.want, " or "), hostKeyRemedy)
}

// algorithms puts the preferred ones first and keeps the others, so that a wrong key is met, and named, and not just not agreed on.
func (p pin) algorithms() []string {
	var plain []string
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !strings.Contains(a, "-cert-") && !slices.Contains(p.first, a) {
			plain = append(plain, a)
		}
	}
	return slices.Concat(p.first, plain)
}

// noKey is a public key that is in no file.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }
