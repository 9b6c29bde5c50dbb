// Package rsync brings exactly the named paths of a module from the upstream, by running the rsync that is installed. It is the only code that
// starts rsync.
//
// A [Runner] owns one destination. [Runner.Run] takes a [Job]: a [Mode] and a list of paths. It checks the paths, cuts the list into runs that
// rsync can handle (its receiver compares every name with the whole list), starts each run in a session of its own, watches that bytes arrive,
// reads what rsync prints, refuses names that nobody asked for, and returns a [Result] or an [Error] that says what to do next.
//
// # Promises
//
//   - At most one run that changes content exists per lock file, even after the agent was killed: the lock is handed to rsync.
//   - When Run returns, every process it started has ended and the temporary folder is empty, but for what is set aside (see Way) and the beginnings
//     of files that were cut off, from which the next run goes on. When the agent is killed, rsync ends by itself.
//   - A name that was not asked for ends the run and is an error, whatever the upstream sends.
//   - No secret is in an argument, an error or a result.
//
// # Symbolic links on the mirror
//
// rsync replaces a symbolic link by a directory when a listed path leads through it, and its ways to avoid that changed with 3.5.0. So a path
// that leads through a link is refused with an error of its own, unless the link is one of Config.Links. For those, rsync is run once more with
// the directory behind the link as its destination, which works with every version, inside and outside of the tree; recursive runs leave the
// link itself alone.
//
// # Sub-folders of a module
//
// An upstream such as rsync://host/module/folder/ is asked for "folder/./name" in rsync://host/module/, because rsync 3.5.0 serving a module
// without chroot takes every listed file for vanished when the address itself names a folder.
package rsync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of a path. rsync cuts longer ones silently.
const (
	MaxPath      = 4000 // bytes
	MaxComponent = 255  // bytes
	// MaxNames is the most names in one list. rsync compares each received name with each listed one: 2,000 cost 0.1 s, 20,000 cost 3 s.
	MaxNames = 2000
)

// CheckPath says why path cannot be the path of something in a module, or nil. Paths are bytes; any but NUL are fine.
func CheckPath(path string) error {
	switch {
	case path == "":
		return errors.New("path is empty")
	case len(path) > MaxPath:
		return fmt.Errorf("path %.60q… is %d bytes long, at most %d", path, len(path), MaxPath)
	case path[0] == '/':
		return fmt.Errorf("path %.300q is absolute: give it relative to the module", path)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("path %.300q contains a NUL byte", path)
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "":
			return fmt.Errorf("path %.300q is not clean: an empty component", path)
		case part == "." || part == "..":
			return fmt.Errorf("path %.300q is not clean: a component is %q", path, part)
		case len(part) > MaxComponent:
			return fmt.Errorf("path %.60q…: a component is %d bytes long, at most %d", path, len(part), MaxComponent)
		}
	}
	return nil
}

// Chunks sorts paths bytewise, drops repeats and cuts the result into lists of at most size. Sorted lists are up to five times cheaper for
// rsync, and names of one directory stay together.
func Chunks(paths []string, size int) [][]string {
	sorted := slices.Compact(slices.Sorted(slices.Values(paths)))
	return slices.Collect(slices.Chunk(sorted, size))
}

// topmost drops the paths that lie below another one of the list: rsync complains when it is told to delete a thing and what is in it.
func topmost(paths []string) []string {
	listed := make(map[string]bool, len(paths))
	for _, p := range paths {
		listed[p] = true
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool {
		for dir := parent(p); dir != ""; dir = parent(dir) {
			if listed[dir] {
				return true
			}
		}
		return false
	})
}

// parent returns the directory of a clean relative path, "" for one at the top.
func parent(path string) string {
	return path[:max(strings.LastIndexByte(path, '/'), 0)]
}

// join puts a folder, which may be "", before a path, which may be "".
func join(dir, path string) string {
	if dir == "" || path == "" {
		return dir + path
	}
	return dir + "/" + path
}

// below tells whether path is dir or lies in it. Everything is below "".
func below(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir+"/")
}

// confuses tells whether rsync's receiver may take the listed path for a pattern that does not match itself and end the run with code 4.
// Versions differ in which of these they get wrong; all such names contain a backslash.
func confuses(path string) bool { return strings.IndexByte(path, '\\') >= 0 }
