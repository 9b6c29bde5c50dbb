// Package signers says who may sign what: it reads an OpenSSH allowed_signers file (ssh-keygen(1), ALLOWED SIGNERS) and a revocation file (a
// list of public keys or a binary KRL), and judges signatures by them as ssh-keygen -Y verify does. [Store] keeps both current while a process
// runs. The package also opens the private keys that sign, from a file or through ssh-agent.
//
// Where it differs from ssh-keygen it is stricter: certificates with critical options, certificates issued with SHA-1, and hardware keys used
// without a touch are refused. It never trusts what ssh-keygen would not.
package signers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// MaxFile is the most bytes of a trust file and of a revocation file.
const MaxFile = 4 << 20

// A File is a parsed trust file. It does not change after Parse and may be used by several goroutines.
type File struct {
	Name    string
	Entries []Entry

	// Revoked are keys that no entry can make good. nil: none.
	Revoked *Revoked

	byID  map[[8]byte][]ssh.PublicKey
	byKey map[string][]int // places in Entries, by the wire form of their key
}

// An Entry is one good line of a trust file.
type Entry struct {
	Line       int
	Principals string // a list of patterns: "*@example.org,!old@example.org"
	Key        ssh.PublicKey
	Authority  bool   // cert-authority: Key issues certificates and signs nothing else
	Namespaces string // a list of patterns; "" means any
	After      time.Time
	Before     time.Time // the last second at which the key is good. The zero time means no limit, for both.
}

// A Problem is a line that does not count, and why.
type Problem struct {
	File string
	Line int
	What string
}

func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.What) }

// Parse reads a trust file; name is for messages. As in ssh-keygen, a bad line is as if it were not there; it is returned as a Problem.
// Times without a Z are local time.
func Parse(r io.Reader, name string) (*File, []Problem, error) {
	return parse(r, name, time.Local)
}

func parse(r io.Reader, name string, loc *time.Location) (*File, []Problem, error) {
	text, err := readAll(r, name)
	if err != nil {
		return nil, nil, err
	}
	f := &File{Name: name, byID: map[[8]byte][]ssh.PublicKey{}, byKey: map[string][]int{}}
	var problems []Problem
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, MaxFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parseEntry(line, loc)
		if err != nil {
			problems = append(problems, Problem{name, n, err.Error()})
			continue
		}
		e.Line = n
		f.add(e)
	}
	return f, problems, lines.Err()
}

func (f *File) add(e Entry) {
	w := wire(e.Key)
	if f.byKey[w] == nil {
		id := sshsig.KeyID(e.Key)
		f.byID[id] = append(f.byID[id], e.Key)
	}
	f.byKey[w] = append(f.byKey[w], len(f.Entries))
	f.Entries = append(f.Entries, e)
}

// KeyByID returns the keys of the file with this id (see sshsig.KeyID), whatever they are trusted with. Two keys may share an id: try each.
func (f *File) KeyByID(id [8]byte) []ssh.PublicKey { return f.byID[id] }

func readAll(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(text) > MaxFile {
		return nil, fmt.Errorf("read %s: larger than %d bytes", name, MaxFile)
	}
	return text, nil
}

// parseEntry reads one line: principals, options, key, comment. The line is not empty and has no leading blanks.
func parseEntry(line string, loc *time.Location) (Entry, error) {
	if strings.ContainsRune(line, 0) {
		return Entry{}, errors.New("line contains a NUL byte")
	}
	principals, rest, err := cutPrincipals(line)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Principals: principals}
	if startsWithKeyType(rest) {
		if e.Key, err = parseKey(rest); err != nil {
			return Entry{}, err
		}
		return e, e.check()
	}
	opts, rest, ok := cutOptions(rest)
	switch {
	case !ok:
		return Entry{}, errors.New("invalid options: a quote is not closed")
	case strings.Trim(rest, " \t\r") == "":
		return Entry{}, errors.New("missing key: a line is principals, options, key type, key")
	}
	if e.Key, err = parseKey(strings.TrimLeft(rest, " \t")); err != nil {
		return Entry{}, err
	}
	if err := e.setOptions(opts, loc); err != nil {
		return Entry{}, fmt.Errorf("bad options: %w", err)
	}
	return e, e.check()
}

// check refuses pattern lists that ssh-keygen takes for lists that match nothing.
func (e Entry) check() error {
	for _, list := range []string{e.Principals, e.Namespaces} {
		for pattern := range strings.SplitSeq(list, ",") {
			if len(strings.TrimPrefix(pattern, "!")) > maxPattern {
				return fmt.Errorf("pattern %.20q… of %d bytes: at most %d", pattern, len(pattern), maxPattern)
			}
		}
	}
	return nil
}
