// Package filelist writes what a module holds in the formats of clients that know nothing of mirrorbus, from the manifest and without a walk:
//
//	fullfiletimelist   the lists of quick-fedora-mirror: fullfiletimelist-MODULE and fullfilelist
//	RECENT             the indexes of CPAN's rrr-client: RECENT-1h.yaml to RECENT-Z.yaml, and the link RECENT.recent
//
// They lie in the root of the module, where those clients look for them. So they are files of the module like others: whoever calls Write announces
// what it returns. The lists name no list, or each would be the reason for the next.
package filelist

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
)

// The kinds of lists.
const (
	Fullfiletimelist = "fullfiletimelist"
	Recent           = "RECENT"
)

// Kinds are the names of the kinds.
func Kinds() []string { return []string{Fullfiletimelist, Recent} }

// A State is what lists are made from: a module after a serial.
type State struct {
	Module event.Module
	Epoch  event.Epoch
	Root   *os.Root                       // of the module's tree, which has the folder .mirrorbus
	Files  iter.Seq2[event.Record, error] // the manifest: op Write or Gone, in order of the paths
	At     func(event.Serial) time.Time   // when a serial was announced, zero if that is not known any more; never later than that of a greater one
	Now    time.Time
	Built  event.Serial // the manifest was built at this serial: what it says was touched up to it, need not have been touched then
}

// Write brings the lists of a kind up to date and returns the names, in the module, of those that it changed. Each is put in place whole or not at all.
func Write(ctx context.Context, kind string, s State) (changed []string, err error) {
	switch kind {
	case Fullfiletimelist:
		changed, err = writeTimelist(ctx, s)
	case Recent:
		changed, err = writeRecent(ctx, s)
	default:
		err = fmt.Errorf("there are no lists of kind %q", kind)
	}
	if err != nil {
		return changed, fmt.Errorf("lists %s of %s: %w", kind, s.Module, err)
	}
	return changed, nil
}

// Paths are the names that the lists of a kind have in a module.
func Paths(kind string, m event.Module) []string {
	if kind == Fullfiletimelist {
		return []string{timelistPrefix + string(m), plainList}
	}
	names := []string{recentLink}
	for _, w := range windows {
		names = append(names, w.file())
	}
	return names
}

// isList tells whether a path is that of a list, of whatever kind and module.
func isList(path string) bool {
	if strings.HasPrefix(path, "RECENT") {
		return slices.Contains(Paths(Recent, ""), path)
	}
	return path == plainList || strings.HasPrefix(path, timelistPrefix) && !strings.Contains(path, "/")
}

// A draft is a file that is written beside the tree, and put in place when it is whole.
type draft struct {
	*bufio.Writer
	root *os.Root
	name string // in the module
	temp string // likewise; the exporter sweeps what is left of it
	file *os.File
}

func newDraft(root *os.Root, name string) (*draft, error) {
	d := &draft{root: root, name: name, temp: event.ExportDir + "/.tmp-list-" + rand.Text()}
	var err error
	d.file, err = root.OpenFile(d.temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	d.Writer = bufio.NewWriterSize(d.file, 1<<16)
	return d, nil
}

// discard removes what place has not put in place.
func (d *draft) discard() error {
	err := d.root.Remove(d.temp)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, d.file.Close())
}

// place puts the draft in place, unless what is there is the same; then it returns false. Rsync daemons read as nobody, whatever the umask.
func (d *draft) place() (changed bool, err error) {
	if err := d.Flush(); err != nil {
		return false, err
	}
	same, err := d.same()
	if err != nil || same {
		return false, err
	}
	if err := d.file.Chmod(0o644); err != nil {
		return false, err
	}
	if err := d.file.Sync(); err != nil { // or a power cut could leave an empty list, which tells clients to remove everything
		return false, err
	}
	return true, d.root.Rename(d.temp, d.name)
}

// same tells whether the file in place holds what the draft does.
func (d *draft) same() (bool, error) {
	info, err := d.root.Lstat(d.name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := d.file.Stat()
	if err != nil || mine.Size() != info.Size() || info.Mode().Perm() != 0o644 {
		return false, err
	}
	old, err := d.root.Open(d.name)
	if err != nil {
		return false, err
	}
	defer old.Close() //nolint:errcheck // only read
	return equal(io.NewSectionReader(d.file, 0, mine.Size()), old)
}

func equal(a, b io.Reader) (bool, error) {
	one, two := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err1 := io.ReadFull(a, one)
		m, err2 := io.ReadFull(b, two)
		if n != m || string(one[:n]) != string(two[:m]) {
			return false, nil
		}
		if err1 != nil || err2 != nil {
			return true, errors.Join(unlessEnd(err1), unlessEnd(err2))
		}
	}
}

func unlessEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
