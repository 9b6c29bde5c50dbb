package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A Claim is what the master's side writes down for the watcher: before an announcement is published its names, afterwards its serial alone.
type Claim struct {
	Serial event.Serial `json:",omitempty"`
	Names  [][]byte     `json:",omitempty"` // as publish takes them; they may be any bytes
	Facts  []Fact       `json:",omitempty"` // what was true of each name then
}

// A Fact is what lstat says of a path. The zero value is that there is nothing.
type Fact struct {
	Mode  uint32 // st_mode
	Size  int64  // of what is no directory
	MTime int64  // nanoseconds; of what is no directory
}

// FactOf looks at a file.
func FactOf(file string) (Fact, error) {
	fi, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return Fact{}, nil
	}
	if err != nil {
		return Fact{}, err
	}
	return factOf(fi), nil
}

func factOf(fi fs.FileInfo) Fact {
	f := Fact{}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		f.Mode = st.Mode
	}
	if !fi.IsDir() {
		f.Size, f.MTime = fi.Size(), fi.ModTime().UnixNano()
	}
	return f
}

func (f Fact) kind() uint32 { return f.Mode & event.ModeType }

// NewClaim looks at what is to be announced.
func NewClaim(root string, names []string) (Claim, error) {
	var c Claim
	for _, n := range names {
		f, err := FactOf(path.Join(root, trigger.ParseName(n).Path))
		if err != nil {
			return c, err
		}
		c.Names, c.Facts = append(c.Names, []byte(n)), append(c.Facts, f)
	}
	return c, nil
}

// Append writes a claim to the end of a file.
func (c Claim) Append(file string) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// claims are what was announced so far, read from a file that grows or, if exported is set, from what the master exports.
type claims struct {
	file   string
	offset int64

	exported string // folder .mirrorbus of the master
	epoch    event.Epoch
	upTo     event.Serial // that were read

	list  []claim
	last  map[string]told // by path, what was said of it last
	paths []string        // the keys of last
	done  []serial
}

// A serial is how many claims had been made when it was given out.
type serial struct {
	is     event.Serial
	claims int
}

// dealt is how many claims a mirror that has applied a serial has dealt with.
func (c *claims) dealt(applied event.Serial) int {
	for _, s := range slices.Backward(c.done) {
		if s.is <= applied {
			return s.claims
		}
	}
	return 0
}

// A claim is a Claim as coverage needs it.
type claim struct {
	all    bool            // anything may have changed
	named  map[string]bool // paths, and directories above one, which get the master's attributes
	whole  map[string]bool // paths that speak for what is below
	levels map[string]bool // directories so many names of which are announced that a mirror may read them instead
	crowd  map[string]int  // how many names of a directory are announced
}

func newClaim() claim {
	return claim{named: map[string]bool{}, whole: map[string]bool{}, levels: map[string]bool{}, crowd: map[string]int{}}
}

// name adds a path; whole says that it speaks for what is below it, too.
func (c claim) name(p string, whole bool) {
	if whole {
		c.whole[p] = true
	}
	dir := path.Dir(p)
	if c.crowd[dir]++; c.crowd[dir] >= crowded {
		c.levels[dir] = true
	}
	for ; p != "." && !c.named[p]; p = path.Dir(p) {
		c.named[p] = true
	}
}

type told struct {
	at   int // in list
	fact Fact
}

// crowded is how many names of one directory a mirror may bring by reading the directory.
const crowded = 200

// read takes in what was written since.
func (c *claims) read() error {
	if c.exported != "" {
		return c.follow()
	}
	f, err := os.Open(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := f.Seek(c.offset, 0); err != nil {
		return err
	}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil // the rest is not written yet
		}
		c.offset += int64(len(line))
		var x Claim
		if err := json.Unmarshal(bytes.TrimSpace(line), &x); err != nil {
			return err
		}
		c.take(x)
	}
}

func (c *claims) take(x Claim) {
	if c.last == nil {
		c.last = map[string]told{}
	}
	if x.Serial != 0 {
		c.done = append(c.done, serial{x.Serial, len(c.list)})
		return
	}
	one := newClaim()
	for i, n := range x.Names {
		name := trigger.ParseName(string(n))
		one.name(name.Path, name.Op != event.Meta && name.Op != event.Write || x.Facts[i].kind() != event.ModeDir)
		if _, known := c.last[name.Path]; !known {
			c.paths = append(c.paths, name.Path)
		}
		c.last[name.Path] = told{len(c.list), x.Facts[i]}
	}
	c.list = append(c.list, one)
}

// covers tells whether an announcement from the one with that number on explains a change at p. A mirror of a subset may read the directory of
// what is gone.
func (c *claims) covers(p string, from int, subset bool) bool {
	for _, one := range c.list[from:] {
		if one.all || subset && one.named[path.Dir(p)] {
			return true
		}
		if one.named[p] || one.levels[path.Dir(p)] {
			return true
		}
		for above := p; above != "."; above = path.Dir(above) {
			if one.whole[above] || one.levels[path.Dir(above)] {
				return true
			}
		}
	}
	return false
}

// within tells whether p or something above it was spoken of from that number on.
func (c *claims) within(p string, from int) bool {
	for _, one := range c.list[from:] {
		for above := p; above != "."; above = path.Dir(above) {
			if one.named[above] && (above == p || one.whole[above]) {
				return true
			}
		}
	}
	return false
}
