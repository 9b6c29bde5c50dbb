// Package itemize reads what rsync prints of a path that it has changed: the itemized change, "%i" of its --out-format, and the name.
package itemize

import (
	"strconv"
	"strings"
)

// Width is the length in bytes of an itemized change: "YXcstpoguax", or "*deleting  ". rsync(1) explains the letters.
const Width = 11

// Cut takes the itemized change from the front of a line in the format "%i %n…". ok is false if the line does not begin with one.
func Cut(line string) (change, rest string, ok bool) {
	if len(line) < Width || !valid(line[:Width]) {
		return "", line, false
	}
	return line[:Width], line[Width:], true
}

// columns are the letters that may stand in each place of an itemized change.
var columns = [Width]string{"<>ch.", "fdLDS", "c.", "s.", "tT.", "p.", "o.", "g.", "unb.", "a.", "x."}

func valid(change string) bool {
	if change == "*deleting  " {
		return true
	}
	rest := change[2:]
	if strings.IndexByte(columns[0], change[0]) < 0 || strings.IndexByte(columns[1], change[1]) < 0 {
		return false
	}
	for _, filled := range []string{"+", "?", " "} { // new, of unknown cause, unchanged
		if rest == strings.Repeat(filled, Width-2) {
			return true
		}
	}
	for i := range rest {
		if strings.IndexByte(columns[i+2], rest[i]) < 0 {
			return false
		}
	}
	return true
}

// Deleted tells whether a change says that the path was removed.
func Deleted(change string) bool { return strings.HasPrefix(change, "*deleting") }

// Made tells whether a change says that content came, or a new link, directory or special file; otherwise attributes were changed at most.
func Made(change string) bool { return change != "" && strings.IndexByte("<>ch", change[0]) >= 0 }

// Untouched tells whether a change, as Cut returns it, says that there was nothing to do.
func Untouched(change string) bool { return change[0] == '.' && strings.TrimSpace(change[2:]) == "" }

// Unescape undoes the \#ooo that rsync writes for bytes that it does not print. Any other backslash is itself.
func Unescape(name string) string {
	if !strings.Contains(name, `\#`) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if strings.HasPrefix(name[i:], `\#`) && i+5 <= len(name) {
			if n, err := strconv.ParseUint(name[i+2:i+5], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 4
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
