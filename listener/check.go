package listener

import (
	"io/fs"

	"github.com/mirrorbus/mirrorbus/event"
)

// A finding is a path that is not as its record says.
type finding struct {
	path string
	what string
}

// otherMode is what judge says of what differs only in its permissions.
const otherMode = "has other permissions"

// judge compares what is at a path (nil for nothing) with its record and says what is wrong, "" if nothing is. A file that is newer than its
// record was written again since; a later announcement speaks of that, so it is not wrong. mask are permission bits that this mirror drops.
func judge(r event.Record, info fs.FileInfo, mask uint32) string {
	switch {
	case r.Op == event.Gone && info != nil:
		return "is still there"
	case r.Op == event.Gone:
		return ""
	case info == nil:
		return "is missing"
	case r.Mode == 0:
		return ""
	}
	newer := newerThan(r, info)
	switch {
	case typeOf(info.Mode()) != r.Mode&event.ModeType:
		if newer {
			return ""
		}
		return "is of another type"
	case r.Mode&event.ModeType == event.ModeLink:
		return ""
	case r.Mode&event.ModeType != event.ModeFile:
	case newer:
		return ""
	case info.Size() != r.Size:
		return "has another size"
	case !event.StampOf(info.ModTime()).Agrees(r.MTime):
		return "is older than announced"
	}
	if unixMode(info.Mode()) != r.Mode&0o7777&^mask {
		return otherMode
	}
	return ""
}

// newerThan tells whether what is at a path was written after its record was made. It need not have been if the master has put something older there.
func newerThan(r event.Record, info fs.FileInfo) bool {
	return info.ModTime().After(r.MTime.Time()) && !event.StampOf(info.ModTime()).Agrees(r.MTime)
}

// typeOf is the file type as in stat(2).
func typeOf(m fs.FileMode) uint32 {
	switch m.Type() {
	case 0:
		return event.ModeFile
	case fs.ModeDir:
		return event.ModeDir
	case fs.ModeSymlink:
		return event.ModeLink
	case fs.ModeNamedPipe:
		return 0o010000
	case fs.ModeSocket:
		return 0o140000
	case fs.ModeDevice:
		return 0o060000
	}
	return 0o020000
}

// maxFindings is how many findings are collected; the rest would say the same.
const maxFindings = 100

// newer are the paths at which something stands that is newer than its record.
func (t *tree) newer(records []event.Record) (paths []string, err error) {
	for _, r := range records {
		if r.Op == event.Gone || r.Mode == 0 || r.IsDir() {
			continue
		}
		info, err := t.lstat(r.Path)
		if err != nil {
			return nil, err
		}
		if info != nil && newerThan(r, info) {
			paths = append(paths, r.Path)
		}
	}
	return paths, nil
}

// check compares the tree with the records, which must be this mirror's own. What differs only in its permissions is in modes alone.
func (t *tree) check(records []event.Record, mask uint32) (found []finding, modes []event.Record, err error) {
	for _, r := range records {
		info, err := t.lstat(r.Path)
		if err != nil {
			return found, modes, err
		}
		switch what := judge(r, info, mask); what {
		case "":
		case otherMode:
			modes = append(modes, r)
		default:
			if found = append(found, finding{r.Path, what}); len(found) == maxFindings {
				return found, modes, nil
			}
		}
	}
	return found, modes, nil
}
