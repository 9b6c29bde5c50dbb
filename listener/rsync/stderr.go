package rsync

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/itemize"
)

// What rsync says about one path, with and without the role that newer versions name:
//
//	rsync: [sender] link_stat "/d/gone" (in module) failed: No such file or directory (2)
//	rsync: [receiver] rename "/tmp/f.Ab12Cd" -> "d/f": Read-only file system (30)
//	rsync: [receiver] rename failed for "/m/d/f" (from d/.~tmp~/f): No such file or directory (2)
//	file has vanished: "/d/f" (in module)
//	could not make way for new regular file: d/f
//	WARNING: d/f failed verification -- update discarded (will try again).
//	ERROR: rejecting unrequested file-list name: d/f
var (
	withErrno = regexp.MustCompile(`^rsync: (?:\[([A-Za-z ]+)\] )?[^"]*"(.*?)"(?: \((?:in|from) [^"]*\))?(?: -> "(.*)"(?: \(in [^"]*\))?)?(?: failed)?: (.*) \((\d+)\)$`)
	vanished  = regexp.MustCompile(`^file has vanished: "(.*)"(?: \(in .*\))?$`)
	madeNoWay = regexp.MustCompile(`^(?:could not make way for new [a-z ]+|cannot delete non-empty directory): (.*)$`)
	unstable  = regexp.MustCompile(`^ERROR: (.*) failed verification -- update discarded`)
	rejected  = regexp.MustCompile(`^ERROR: rejecting (?:unrequested|excluded) file-list name: (.*)$`)
)

// pathError reads one line that rsync printed. ok is false for a line that is not about one path.
func pathError(line string) (p PathError, ok bool) {
	if m := withErrno.FindStringSubmatch(line); m != nil {
		p = PathError{Path: m[2], Text: m[4], Local: m[1] == "receiver" || m[1] == "generator" || m[1] == "Receiver"}
		if m[3] != "" {
			p.Path = m[3] // the name that was to be made, not the temporary one
		}
		p.Kind = kindOf(m[5], m[4])
		p.Local = p.Local || p.Kind == NoSpace || p.Kind == ReadOnly || m[1] == "" && localWords.MatchString(line)
		p.Path = itemize.Unescape(p.Path)
		return p, true
	}
	for _, form := range []struct {
		re    *regexp.Regexp
		kind  Kind
		local bool
		text  string
	}{
		{vanished, Gone, false, "removed while it was being read"},
		{madeNoWay, InTheWay, true, "a non-empty directory is there, and no deletion is allowed"},
		{unstable, Unstable, false, "changed while it was being read"},
		{rejected, Rejected, true, "rsync refuses the name"},
	} {
		if m := form.re.FindStringSubmatch(line); m != nil {
			return PathError{Path: itemize.Unescape(m[1]), Kind: form.kind, Local: form.local, Text: form.text}, true
		}
	}
	return p, false
}

// localWords are operations that only happen on the receiving side, for versions that do not name the role.
var localWords = regexp.MustCompile(`^rsync: (mkstemp|rename|recv_generator|mkdir|delete_file|symlink|chown|failed to set|write failed|chgrp|link )`)

func kindOf(errno, text string) Kind {
	n, err := strconv.Atoi(errno)
	if err != nil {
		return Other
	}
	// The number is that of the host that met the error; its text tells where the systems differ.
	switch {
	case n == 2:
		return NotFound
	case n == 1 || n == 13:
		return Permission
	case n == 20:
		return NotDir
	case n == 28 || strings.Contains(text, "quota exceeded"):
		return NoSpace
	case n == 30:
		return ReadOnly
	case strings.Contains(text, "levels of symbolic links"):
		return Loop
	case strings.Contains(text, "name too long"):
		return TooLong
	}
	return Other
}
