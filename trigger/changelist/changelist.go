// Package changelist reads what other tools print of the changes they made, as names to be announced.
//
// Each format is read strictly: a line that is not known is an error that names it, since to leave out what was not understood is to leave mirrors
// behind without a word. What a list says of a path was true when it was printed and need not be now, so names of all formats but Names are to be
// announced as they are found (Request.AsFound).
package changelist

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// The formats. Besides these a format may be a string as for rsync's --out-format, with %i and %n.
const (
	Names    = "names"     // one name a line, or each ended by NUL, with the prefixes of trigger.ParseName
	Itemize  = "itemize"   // rsync -i
	RsyncLog = "rsync-log" // rsync --log-file=… -i, or the log of a daemon with "log format = %i %n%L"
	Git      = "git"       // git diff --name-status -z
	Reprepro = "reprepro"  // the .outlog that reprepro gives to its outhook
)

// Formats are the names of the formats.
func Formats() []string { return []string{Names, Itemize, RsyncLog, Git, Reprepro} }

// Options say how a list is read.
type Options struct {
	Format string
	NUL    bool   // Names end with NUL instead of a line end
	Base   string // names are relative to this folder of the module
	Strip  string // names begin with this folder, which is left out; before Base
}

// Outdated tells whether the names of a format may not be true any more, so that they are to be announced as they are found.
func (o Options) Outdated() bool { return o.Format != Names }

// Check says what is wrong with o.
func (o Options) Check() error {
	if o.NUL && o.Format != Names {
		return fmt.Errorf("-0 is for lists of names, not for the format %s", o.Format)
	}
	if o.Base != "" {
		if err := event.CheckPath(o.Base); err != nil {
			return fmt.Errorf("base %w", err)
		}
	}
	if slices.Contains(Formats(), o.Format) {
		return nil
	}
	if !strings.Contains(o.Format, "%") {
		return fmt.Errorf("format %.40q is not known; there are %s, and what rsync's --out-format takes, as in \"%%i %%n\"", o.Format, strings.Join(Formats(), ", "))
	}
	_, err := parseOutFormat(o.Format)
	return err
}

// Read reads a list. Each path stands once in what it returns, but for Names, where to name a path twice is a mistake of its author's. The error tells
// the number of the line, or of the name in a list that is separated by NULs.
func Read(r io.Reader, o Options) ([]trigger.Name, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if o.Format == Names {
		names, err := trigger.ReadNames(r, o.NUL)
		if err != nil {
			return nil, err
		}
		return o.place(names)
	}
	var found changes
	var err error
	in := newScanner(r)
	switch o.Format {
	case Git:
		err = readGit(in, &found)
	case Reprepro:
		err = readReprepro(in, &found)
	case RsyncLog:
		err = readLog(in, &found)
	case Itemize:
		err = readRsync(in, &found, itemized)
	default:
		f, _ := parseOutFormat(o.Format) // Check has found it right
		err = readRsync(in, &found, f)
	}
	if err != nil {
		return nil, err
	}
	return o.place(found.names())
}

// place moves names to where they are in the module. Of the module itself nothing is announced.
func (o Options) place(names []trigger.Name) ([]trigger.Name, error) {
	placed := names[:0]
	for _, n := range names {
		path, whole, err := o.move(n.Path)
		if err != nil {
			return nil, err
		}
		if !whole {
			placed = append(placed, trigger.Name{Op: n.Op, Path: path})
		}
	}
	return placed, nil
}

// move is where a name is in the module; whole tells that it stands for all of the module. What is no path is refused where paths are looked at, but
// for what would lead out of the base.
func (o Options) move(name string) (moved string, whole bool, err error) {
	if o.Strip != "" {
		after, ok := strings.CutPrefix(name, strings.TrimSuffix(strings.TrimPrefix(o.Strip, "./"), "/"))
		if !ok || after != "" && after[0] != '/' {
			return "", false, fmt.Errorf("name %.200q is not in %s", name, o.Strip)
		}
		if name = strings.TrimPrefix(after, "/"); name == "" {
			name = "."
		}
	}
	switch {
	case name == "." && o.Base != "":
		return o.Base, false, nil
	case name == "." && (o.Format != Names || o.Strip != ""):
		return "", true, nil
	case o.Base == "":
		return name, false, nil
	}
	if err := event.CheckPath(name); err != nil {
		return "", false, err
	}
	return o.Base + "/" + name, false, nil
}

// errCut says that a list ends in the middle.
var errCut = errors.New("the list ends in the middle of it, so it was cut short")
