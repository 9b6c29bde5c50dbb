package hub

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/hostkey"
)

// LoadHostKey reads the hub's private key from a file without a passphrase. It refuses a file that others than its owner can read.
func LoadHostKey(path string) (ssh.Signer, error) {
	key, err := hostkey.Private(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("host key: %w; `mirrorbus init master` makes one", err)
	case err != nil:
		return nil, fmt.Errorf("host key: %w", err)
	}
	return key, nil
}
