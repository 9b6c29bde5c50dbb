package crash_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// gone is the state of a path where nothing is.
const gone = "gone"

// A change is the state that a path came to have, and the serial that says so: 0 while no publish of it has returned.
type change struct {
	serial event.Serial
	state  string
}

// A history is what every path of the master's tree was, in order. A state is "gone", "version N" of a file or "mode M" of a directory.
type history map[string][]change

// content is a file's content in a version. It says what it is, so that half of it, or another file's, is not taken for it.
func content(path string, version int) string {
	line := fmt.Sprintf("%s version %d\n", path, version)
	return strings.Repeat(line, 1+4000/len(line))
}

// stateOf looks at a path below root.
func stateOf(root, path string) string {
	file := filepath.Join(root, path)
	info, err := os.Lstat(file)
	switch {
	case os.IsNotExist(err):
		return gone
	case err != nil:
		return err.Error()
	case info.IsDir():
		return fmt.Sprintf("mode %o", info.Mode().Perm())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	// A renamed file says its old name: what follows the last slash counts.
	first, _, _ := strings.Cut(string(b), "\n")
	var name string
	var version int
	if _, err := fmt.Sscanf(first, "%s version %d", &name, &version); err != nil || string(b) != content(name, version) {
		return fmt.Sprintf("broken, %d bytes", len(b))
	}
	return fmt.Sprintf("version %d", version)
}

// says notes a state that is about to be announced.
func (h history) says(states map[string]string) {
	for path, s := range states {
		h[path] = append(h[path], change{state: s})
	}
}

// said gives the states that wait for their serial the one that was announced.
func (h history) said(serial event.Serial) {
	for _, all := range h {
		for i := range all {
			if all[i].serial == 0 {
				all[i].serial = serial
			}
		}
	}
}

// missing lists the paths below root that are older than serial says.
func (h history) missing(root string, serial event.Serial) []string {
	var out []string
	for path, all := range h {
		at := -1
		for i, c := range all {
			if c.serial != 0 && c.serial <= serial {
				at = i
			}
		}
		is := stateOf(root, path)
		if at >= 0 && !slices.ContainsFunc(all[at:], func(c change) bool { return c.state == is }) {
			out = append(out, fmt.Sprintf("%s is %s, and serial %d says %s", path, is, all[at].serial, all[at].state))
		}
	}
	slices.Sort(out)
	return out
}
