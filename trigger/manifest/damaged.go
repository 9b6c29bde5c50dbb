package manifest

import (
	"errors"
	"fmt"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// SQLite's result codes of a damaged file, from sqlite.org/rescode.html.
const (
	codeCorrupt = 11
	codeNotADB  = 26
)

// named says of an error that a damaged database leads to which one that is, and what helps; others it returns as they are.
func (m *Manifest) named(err error) error {
	var coded interface{ Code() int }
	if !errors.As(err, &coded) || fault.HintOf(err) != "" {
		return err
	}
	if c := coded.Code() & 0xff; c != codeCorrupt && c != codeNotADB {
		return err
	}
	return fault.With(fmt.Errorf("manifest %s is damaged: %w", m.path, err), fault.Failed,
		"stop the hub, move that file and its -wal and -shm files aside, and start it again: it builds the manifest anew, and mirrors need nothing for that")
}
