package catchup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener"
)

// A Kind says how a path of the tree differs from the manifest.
type Kind string

// The kinds.
const (
	Missing  Kind = "missing"  // the manifest has it
	Modified Kind = "modified" // type, size, time or content
	Mode     Kind = "mode"     // only the permissions
	Extra    Kind = "extra"    // the tree has it
)

// A Finding is one path that is not as the manifest says.
type Finding struct {
	Kind   Kind
	What   string       // in words, for people
	Record event.Record // as the manifest has it; of an Extra what lies here
}

// Differences compares the tree with a manifest, path by path, within what this mirror carries. It holds one shard and one directory for each level
// of the tree. With checksum it also reads the files whose digest the manifest knows. An error ends the sequence.
func (s *Source) Differences(ctx context.Context, m *Manifest, checksum bool) iter.Seq2[Finding, error] {
	said := export.Only(m.Records(), func(r event.Record) bool {
		return r.Op != event.Gone && s.Rules.Included(r.Path, r.IsDir()) && !skipped(r.Path)
	})
	return func(yield func(Finding, error) bool) {
		for pair, err := range export.Merge(said, s.walk()) {
			if err = errors.Join(err, ctx.Err()); err != nil {
				yield(Finding{}, err)
				return
			}
			f, err := s.judge(pair, checksum)
			if (f.Kind != "" || err != nil) && !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// judge compares what the manifest and the tree say of one path. A Finding without Kind means that they agree.
func (s *Source) judge(p export.Pair, checksum bool) (Finding, error) {
	said, here := p.A, p.B
	switch {
	case here == nil:
		return Finding{Missing, "is missing", *said}, nil
	case said == nil:
		if s.Rules.Protected(here.Path, here.IsDir()) {
			return Finding{}, nil
		}
		return Finding{Extra, "is not in the manifest", *here}, nil
	case said.Mode&event.ModeType != here.Mode&event.ModeType:
		return Finding{Modified, fmt.Sprintf("has mode %o, not %o: it is of another type", here.Mode, said.Mode), *said}, nil
	}
	kind := said.Mode & event.ModeType
	switch {
	case (kind == event.ModeFile || kind == event.ModeLink) && said.Size != here.Size:
		return Finding{Modified, fmt.Sprintf("is %d bytes long, not %d", here.Size, said.Size), *said}, nil
	case kind == event.ModeFile && !said.MTime.Agrees(here.MTime):
		return Finding{Modified, fmt.Sprintf("was written at %s, not %s", here.MTime, said.MTime), *said}, nil
	case kind == event.ModeFile && checksum && !said.Sum.IsZero():
		if same, err := s.sameContent(*said); err != nil || !same {
			return Finding{Modified, "has another content", *said}, err
		}
	}
	if want := said.Mode &^ s.Mask; kind != event.ModeLink && want != here.Mode&^s.Mask {
		return Finding{Mode, fmt.Sprintf("has mode %o, not %o", here.Mode, want), *said}, nil
	}
	return Finding{}, nil
}

// sameContent reads a file and compares its digest.
func (s *Source) sameContent(r event.Record) (bool, error) {
	dir, name := s.Tree, r.Path
	for _, link := range s.Links {
		if event.Under(link, r.Path) && len(r.Path)-len(link) < len(name) {
			dir, name = filepath.Join(s.Tree, link), strings.TrimPrefix(r.Path, link+"/")
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close() //nolint:errcheck // only read
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, fmt.Errorf("read %q: %w", r.Path, err)
	}
	return event.Digest(h.Sum(nil)) == r.Sum, nil
}

// Compare fetches the manifest that a verified head names and returns what brings the tree to it. For a mirror that has every announcement of
// epoch e up to applied that is what was touched since, if the manifest reaches back so far; that costs no walk of the tree. Otherwise the tree
// is compared, name by name; what agrees is not in the result, so a mirror that was filled by other means transfers nothing again. The error
// Is export.ErrNotExported if the upstream does not have that manifest.
func (s *Source) Compare(ctx context.Context, h event.Head, e event.Epoch, applied event.Serial) (listener.Difference, error) {
	m, err := s.Manifest(ctx, h)
	if err != nil {
		return listener.Difference{}, err
	}
	set, err := s.Missed(m, e, applied)
	if errors.Is(err, ErrGap) {
		set, err = s.set(ctx, m)
	}
	if err = errors.Join(err, m.Close()); err != nil {
		return listener.Difference{}, err
	}
	return listener.Difference{Serial: m.Serial, Entries: m.Entries, Set: set}, nil
}

// set makes a path set of the differences.
func (s *Source) set(ctx context.Context, m *Manifest) (event.PathSet, error) {
	var set event.PathSet
	closed := map[string]bool{} // paths below which nothing remains in any case
	for f, err := range s.Differences(ctx, m, false) {
		if err != nil {
			return nil, err
		}
		r := f.Record
		r.Serial = 0
		switch f.Kind {
		case Mode:
			r.Op = event.Meta
		case Extra:
			if below(closed, r.Path) {
				continue
			}
			r = event.Record{Op: event.Gone, Mode: r.Mode & event.ModeType, Path: r.Path}
			closed[r.Path] = true
		case Modified, Missing:
			if closed[r.Path] = f.Kind == Modified && !r.IsDir(); r.IsDir() {
				r.Op = event.Tree // nothing of it is here: it is read as a whole, and what is below is only looked for afterwards
			}
		}
		set = append(set, r)
	}
	return slices.Clip(set), set.Check()
}

// below tells whether path lies below one of those.
func below(closed map[string]bool, path string) bool {
	for i := strings.LastIndexByte(path, '/'); i >= 0; i = strings.LastIndexByte(path, '/') {
		if path = path[:i]; closed[path] {
			return true
		}
	}
	return false
}
