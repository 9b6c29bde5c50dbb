package filelist

import (
	"context"
	"crypto/sha1" //nolint:gosec // the format has these sums, for comparing and not for trust
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// The files of quick-fedora-mirror: the list that it needs, and the plain one for people and for fedfind.
const (
	timelistPrefix = "fullfiletimelist-"
	plainList      = "fullfilelist"
)

// maxSummed is the size in bytes of the largest repomd.xml whose sum is told.
const maxSummed = 32 << 20

// writeTimelist writes the list that create-filelist of quick-fedora-mirror makes by a walk. It differs from that one in three things. The time of a file
// is the later of its modification and its announcement, since the manifest does not hold inode change times; it serves the same purpose, that a client
// takes another look at what was touched. A symbolic link is listed wherever it points. Names with a tab or a line end, which the format cannot
// hold and which make its clients fail as long as they are listed, are left out.
func writeTimelist(ctx context.Context, s State) (changed []string, err error) {
	times, err := newDraft(s.Root, timelistPrefix+string(s.Module))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, times.discard()) }()
	plain, err := newDraft(s.Root, plainList)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plain.discard()) }()
	t := &timelist{State: s, times: times, plain: plain, closed: map[string]shutness{}}
	if err := t.write(ctx); err != nil {
		return nil, err
	}
	for _, d := range []*draft{plain, times} { // the one that clients act on last
		placed, err := d.place()
		if err != nil {
			return changed, err
		}
		if placed {
			changed = append(changed, d.name)
		}
	}
	return changed, nil
}

// shutness is why what is below a directory is not everybody's.
type shutness byte

const (
	open       shutness = iota
	restricted          // not for the world: its mirrors have it, and do not show it
	hidden              // not for the group either: not listed
)

type timelist struct {
	State
	times, plain *draft
	closed       map[string]shutness // directories that are not open, by path
	sums         []event.Record      // files whose sums are told
}

func (t *timelist) write(ctx context.Context) error {
	fmt.Fprint(t.times, "[Version]\n2\n\n[Files]\n")
	for r, err := range t.Files {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if r.Op != event.Gone {
			t.file(r)
		}
	}
	fmt.Fprint(t.times, "\n[Checksums SHA1]\n") // which a client misses if it is not there
	for _, r := range t.sums {
		sum, ok, err := t.sum(r)
		if err != nil {
			return err
		}
		if ok {
			fmt.Fprintf(t.times, "%s\t%s\n", sum, r.Path)
		}
	}
	fmt.Fprint(t.times, "\n[End]\n") // by which a client knows that the list is whole
	return nil
}

// file writes the line of one path. What cannot be written is seen when the draft is flushed.
func (t *timelist) file(r event.Record) {
	above := t.above(r.Path)
	name := r.Path[strings.LastIndexByte(r.Path, '/')+1:]
	if r.Mode&event.ModeType == event.ModeLink {
		r.Mode |= 0o777
	}
	if above == hidden || r.Mode&0o040 == 0 || name == ".~tmp~" || strings.HasPrefix(name, ".nfs") {
		t.shut(r, hidden)
		return
	}
	if isList(r.Path) || strings.ContainsAny(name, "\t\n") {
		if r.IsDir() {
			t.shut(r, hidden)
		}
		return
	}
	kind := map[uint32]string{event.ModeFile: "f", event.ModeLink: "l", event.ModeDir: "d"}[r.Mode&event.ModeType]
	switch {
	case r.Mode&0o004 == 0:
		t.shut(r, restricted)
		kind += "-"
	case above == restricted:
		t.shut(r, restricted)
		kind += "*"
	}
	fmt.Fprintf(t.times, "%d\t%s\t%d\t%s\n", t.time(r), kind, r.Size, r.Path)
	fmt.Fprintf(t.plain, "./%s\n", r.Path)
	if name == "repomd.xml" && kind[0] == 'f' {
		t.sums = append(t.sums, r)
	}
}

// above is how the directory that holds a path is shut.
func (t *timelist) above(path string) shutness {
	if len(t.closed) == 0 {
		return open
	}
	return t.closed[path[:max(strings.LastIndexByte(path, '/'), 0)]]
}

func (t *timelist) shut(r event.Record, how shutness) {
	if r.IsDir() {
		t.closed[r.Path] = how
	}
}

func (t *timelist) time(r event.Record) int64 {
	at := r.MTime.Sec
	if r.Serial > t.Built {
		if told := t.At(r.Serial); !told.IsZero() {
			at = max(at, told.Unix())
		}
	}
	return at
}

// sum reads a file. ok is false if it is not the one that r tells of any more; its announcement is under way.
func (t *timelist) sum(r event.Record) (sum string, ok bool, err error) {
	info, err := t.Root.Lstat(r.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", false, nil
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() != r.Size || r.Size > maxSummed || info.ModTime().Unix() != r.MTime.Sec {
		return "", false, err
	}
	f, err := t.Root.OpenFile(r.Path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe that took its place must not hold us up
	if err != nil {
		return "", false, err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha1.New() //nolint:gosec // as above
	if _, err := io.CopyN(h, f, r.Size); err != nil && !errors.Is(err, io.EOF) {
		return "", false, err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), true, nil
}
