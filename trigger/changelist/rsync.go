package changelist

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/itemize"
)

// An outFormat is the format of rsync's lines about paths, cut at its directives: before %i, and between %i and %n, stands what lines must have.
type outFormat struct {
	before, between []piece
	link            bool // %L follows the name
}

// A piece is text that stands in each line, or a directive, of which the value is skipped.
type piece struct {
	text string
	skip byte
}

var itemized = outFormat{between: []piece{{text: " "}}, link: true}

// parseOutFormat reads what is given to rsync as --out-format. The name must come last, but for %L, since it may contain anything.
func parseOutFormat(s string) (f outFormat, err error) {
	var begun []piece
	seen := false
	for rest := s; rest != ""; {
		text, after, directive := strings.Cut(rest, "%")
		if text != "" {
			begun = append(begun, piece{text: text})
		}
		if !directive {
			break
		}
		if after == "" {
			return f, fmt.Errorf("format %.80q ends with %%", s)
		}
		if !parted(begun) {
			return f, fmt.Errorf("format %.80q: what stands before %%%c cannot be told from it; put a space or a | between them", s, after[0])
		}
		rest = after[1:]
		switch c := after[0]; {
		case c == 'i' && !seen:
			f.before, begun, seen = begun, nil, true
		case c == 'n' && seen && (rest == "" || rest == "%L"):
			f.between, f.link = begun, rest != ""
			return f, nil
		case strings.IndexByte("lbo", c) >= 0:
			begun = append(begun, piece{skip: c})
		default:
			return f, fmt.Errorf("format %.80q: %%%c cannot be read there; give rsync --out-format='%%i %%n'", s, c)
		}
	}
	return f, fmt.Errorf("format %.80q: must have %%i, and %%n as its last", s)
}

// letters are what the value of a directive consists of: a number, or one of send, recv and del.
func letters(directive byte) string {
	if directive == 'o' {
		return "abcdefghijklmnopqrstuvwxyz."
	}
	return "0123456789"
}

// parted tells whether each value ends where the text after it begins.
func parted(pieces []piece) bool {
	for i, p := range pieces {
		if p.skip != 0 && (i+1 == len(pieces) || strings.IndexByte(letters(p.skip), pieces[i+1].text[0]) >= 0) {
			return false
		}
	}
	return true
}

// cut takes the itemized change and the name, with what follows it, out of a line.
func (f outFormat) cut(line string) (change, name string, ok bool) {
	if line, ok = skip(line, f.before); !ok {
		return "", "", false
	}
	if change, line, ok = itemize.Cut(line); !ok {
		return "", "", false
	}
	name, ok = skip(line, f.between)
	return change, name, ok && name != ""
}

func skip(line string, pieces []piece) (rest string, ok bool) {
	for _, p := range pieces {
		if p.skip != 0 {
			line = strings.TrimLeft(line, letters(p.skip))
		} else if line, ok = strings.CutPrefix(line, p.text); !ok {
			return "", false
		}
	}
	return line, true
}

// errTwoArrows says that the end of a link's name cannot be told.
var errTwoArrows = errors.New("has the arrow twice, so where the name of the link ends cannot be told; give rsync --out-format='%i %n' and read it with that format")

// path is the name without the target of a link that %L has added, and without escapes and the slash of a directory; "." is the destination itself.
func (f outFormat) path(change, name string) (string, error) {
	arrow := ""
	switch {
	case !f.link || itemize.Deleted(change):
	case change[0] == 'h':
		arrow = " => "
	case change[1] == 'L':
		arrow = " -> "
	}
	if arrow != "" {
		if strings.Count(name, arrow) > 1 {
			return "", errTwoArrows
		}
		name, _, _ = strings.Cut(name, arrow)
	}
	name = strings.TrimSuffix(itemize.Unescape(name), "/")
	return strings.TrimPrefix(name, "./"), nil
}

// Lines that rsync prints and that are about no path, or about one that it left alone.
var (
	inOutput = regexp.MustCompile(`^$|^(sending|receiving) (incremental )?file list( \.\.\. done)?$|^building file list( \.\.\. done)?$|^created (\d+ )?director(y|ies) |` +
		`^sent [\d,.]+[KMGTP]? bytes  received |^total size is |^Number of |^Total |^Literal data: |^Matched data: |^File list |` +
		`^delta-transmission (enabled|disabled)|^skipping non-regular file "|^ignoring unsafe symlink "|^cannot delete non-empty directory: |` +
		`^IO error encountered -- skipping file deletion$|^\(new\) backup_dir is `)
	onlyInLog = regexp.MustCompile(`^rsync: |^rsync (error|warning): |^(ERROR|WARNING): |^file has vanished: |^connect from |^rsyncd version |` +
		`^rsync (allowed access|denied) on module |^module-list request from |^unknown module '|^name lookup failed |^forward name lookup |` +
		`^Deletions stopped |^max connections |^auth failed |^sent [\d,.]+ bytes  received .*total size `)
	stamp = regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\d+)\] `)
	begin = regexp.MustCompile(`^rsync (to|on) [^/ ]*/*(.*) from [^ ]+ \([^ ]*\)$`)
)

// readRsync reads lines of rsync. Of those that are not of format f only the known ones are passed over.
func readRsync(in *scanner, into *changes, f outFormat) error {
	return eachLine(in, func(line string) error {
		known, err := f.take(into, line, "")
		if err == nil && !known && !inOutput.MatchString(line) {
			err = fmt.Errorf("%.100q is not what rsync prints in this format", line)
		}
		return err
	})
}

// A session is what a daemon does for one client, from when it says so: a client fetches, which changes nothing, or pushes into a folder, and names are
// relative to that. What a client logs has no such beginning.
type session struct {
	folder  string
	fetches bool
}

// readLog reads a log of rsync. It has a stamp before each line, and holds what went wrong too, which changed nothing.
func readLog(in *scanner, into *changes) error {
	sessions := map[string]session{} // by process
	return eachLine(in, func(line string) error {
		at := stamp.FindStringSubmatch(line)
		if at == nil {
			return fmt.Errorf("%.100q does not begin as a line of rsync's log does, with date, time and process", line)
		}
		process, line := at[1], line[len(at[0]):]
		if m := begin.FindStringSubmatch(line); m != nil {
			s := session{folder: strings.TrimRight(itemize.Unescape(m[2]), "/"), fetches: m[1] == "on"}
			if err := event.CheckPath(s.folder); s.folder != "" && !s.fetches && err != nil {
				return fmt.Errorf("%.100q: cannot be placed in the module: %w", line, err)
			}
			sessions[process] = s
			return nil
		}
		if sessions[process].fetches {
			return nil
		}
		known, err := itemized.take(into, line, sessions[process].folder)
		if err == nil && !known && !inOutput.MatchString(line) && !onlyInLog.MatchString(line) {
			err = fmt.Errorf("%.100q is not what rsync logs in this format", line)
		}
		return err
	})
}

// eachLine calls f with each line of a list. What is wrong with one, it says of that line.
func eachLine(in *scanner, f func(line string) error) error {
	for {
		line, err := in.line()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(line); err != nil {
			return in.fault(err)
		}
	}
}

// take notes the change that a line tells of, with its name relative to a folder. ok is false if it is none.
func (f outFormat) take(into *changes, line, folder string) (ok bool, err error) {
	change, name, ok := f.cut(line)
	if !ok {
		return false, nil
	}
	path, err := f.path(change, name)
	switch {
	case err != nil:
		return true, fmt.Errorf("%.100q %w", line, err)
	case folder != "" && path == ".":
		path = folder
	case folder != "":
		path = folder + "/" + path
	}
	note(into, change, path)
	return true, nil
}

// note notes one change. Devices, pipes and sockets are left out, as mirrors leave them.
func note(into *changes, change, path string) {
	switch kind := change[1]; {
	case itemize.Deleted(change):
		into.add(event.Gone, path)
	case kind == 'D' || kind == 'S' || itemize.Untouched(change):
	case kind == 'd' && itemize.Made(change):
		into.add(event.Write, path)
	case kind == 'd':
		into.add(event.Meta, path)
	case itemize.Made(change):
		into.file(event.Write, path)
	default:
		into.file(event.Meta, path)
	}
}
