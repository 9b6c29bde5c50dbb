package catchup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// A Manifest is a whole manifest, fetched and checked.
type Manifest struct {
	export.Index
	reader *export.Reader
}

// Close frees it.
func (m *Manifest) Close() error { return m.reader.Close() }

// Records yields its entries and tombstones in order of their paths.
func (m *Manifest) Records() export.Records { return m.reader.Records(m.Index) }

// Manifest returns the manifest that a verified head names, from what came with the head, else in one connection for what is not here yet. If the
// upstream has just made a newer one, the index and the shards of this one are asked for by name. The error Is export.ErrNotExported if it does not
// have all of them: its next head will name another.
func (s *Source) Manifest(ctx context.Context, h event.Head) (*Manifest, error) {
	if h.Module != s.Module || h.Manifest.IsZero() {
		return nil, fmt.Errorf("manifest of module %s: %w: the head of module %s names none", s.Module, export.ErrNotExported, h.Module)
	}
	r, ix, err := s.index(ctx, h)
	if err != nil {
		return nil, err
	}
	if err = s.shards(ctx, r, ix); err == nil {
		err = s.prune(h.Manifest, ix)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &Manifest{ix, r}, nil
}

// index returns the index, from here if it is here.
func (s *Source) index(ctx context.Context, h event.Head) (*export.Reader, export.Index, error) {
	if r, ix, err := s.openIndex(h); err == nil {
		return r, ix, nil
	}
	if err := s.fetch(ctx, []string{export.NowDir}, export.MaxShard); err != nil {
		return nil, export.Index{}, fmt.Errorf("fetch the manifest: %w", err)
	}
	if err := s.adopt(); err != nil {
		return nil, export.Index{}, err
	}
	return s.namedIndex(ctx, h)
}

// namedIndex returns the index, from here if it is here, and else asks for it alone.
func (s *Source) namedIndex(ctx context.Context, h event.Head) (*export.Reader, export.Index, error) {
	if r, ix, err := s.openIndex(h); err == nil {
		return r, ix, nil
	}
	name := export.IndexFile(h.Manifest)
	if err := s.forget(name, nowName(name)); err != nil {
		return nil, export.Index{}, err
	}
	if err := s.fetch(ctx, []string{name}, export.MaxIndex); err != nil {
		return nil, export.Index{}, fmt.Errorf("fetch the manifest's index: %w", err)
	}
	return s.openIndex(h)
}

// nowName is the second name of an index or shard.
func nowName(file string) string { return path.Join(export.NowDir, path.Base(file)) }

// adopt gives what was fetched as part of the newest manifest its first name. The second stays, so that rsync sees what need not be fetched again.
func (s *Source) adopt() error {
	root, err := os.OpenRoot(s.export())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing was written through it that could be lost
	files, err := fs.ReadDir(root.FS(), export.NowDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		name := path.Join(export.ManifestDir, f.Name())
		if !f.Type().IsRegular() {
			continue
		}
		if linkErr := root.Link(nowName(name), name); !errors.Is(linkErr, fs.ErrExist) {
			err = errors.Join(err, linkErr)
		}
	}
	return err
}

func (s *Source) openIndex(h event.Head) (*export.Reader, export.Index, error) {
	r, err := export.OpenReader(s.export())
	if err != nil {
		return nil, export.Index{}, err
	}
	ix, err := r.Manifest(h.Manifest)
	if err == nil && (ix.Module != h.Module || ix.Epoch != h.Epoch || ix.Serial > h.Serial) {
		err = fmt.Errorf("%w: manifest %s is of module %s, epoch %s, serial %d; the head that names it is of module %s, epoch %s, serial %d", event.ErrFormat,
			h.Manifest, ix.Module, ix.Epoch, ix.Serial, h.Module, h.Epoch, h.Serial)
	}
	if err != nil {
		return nil, ix, errors.Join(err, r.Close())
	}
	return r, ix, nil
}

// shards makes sure that all shards are here and whole, and fetches those that are not.
func (s *Source) shards(ctx context.Context, r *export.Reader, ix export.Index) error {
	var want []export.Shard
	for _, shard := range ix.Shards {
		if s.whole(shard) == nil {
			continue
		}
		if err := s.forget(export.ShardFile(shard.Digest), nowName(export.ShardFile(shard.Digest))); err != nil {
			return err
		}
		want = append(want, shard)
	}
	for some := range slices.Chunk(want, maxEntries) {
		names := make([]string, len(some))
		for i, shard := range some {
			names[i] = export.ShardFile(shard.Digest)
		}
		if err := s.fetch(ctx, names, export.MaxShard); err != nil {
			return fmt.Errorf("fetch %d shards of the manifest: %w", len(some), err)
		}
	}
	for _, shard := range want {
		if err := s.whole(shard); err != nil {
			return errors.Join(fmt.Errorf("manifest at serial %d: %w", ix.Serial, err), s.forget(export.ShardFile(shard.Digest)))
		}
	}
	return nil
}

// whole says what is wrong with a shard as it lies here, or nil.
func (s *Source) whole(shard export.Shard) error {
	root, err := os.OpenRoot(s.export())
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	name := export.ShardFile(shard.Digest)
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: shard %s", export.ErrNotExported, shard.Digest)
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() != shard.Bytes:
		return fmt.Errorf("%w: shard %s is of another size than its index says", event.ErrFormat, shard.Digest)
	}
	b, err := root.ReadFile(name)
	if err == nil && event.Sum(b) != shard.Digest {
		err = fmt.Errorf("%w: shard %s has another content than its name says", event.ErrFormat, shard.Digest)
	}
	return err
}

// prune removes what belongs to older manifests.
func (s *Source) prune(index event.Digest, ix export.Index) error {
	keep := map[string]bool{path.Base(export.IndexFile(index)): true}
	for _, shard := range ix.Shards {
		keep[path.Base(export.ShardFile(shard.Digest))] = true
	}
	var errs []error
	for _, dir := range []string{export.ManifestDir, export.NowDir} {
		files, err := os.ReadDir(filepath.Join(s.export(), dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, f := range files {
			if name := path.Join(dir, f.Name()); name != export.NowDir && !keep[f.Name()] {
				errs = append(errs, s.forget(name))
			}
		}
	}
	return errors.Join(errs...)
}

// Missed is what a mirror at serial applied of the manifest's epoch missed, as a path set. It costs no walk of the tree. The error Is ErrGap if
// the manifest does not reach back so far; then the tree must be compared.
func (s *Source) Missed(m *Manifest, e event.Epoch, applied event.Serial) (event.PathSet, error) {
	if e != m.Epoch || applied < m.Floor || applied > m.Serial {
		return nil, fmt.Errorf("manifest of module %s, epoch %s, serials %d to %d, for a mirror at %s %d: %w", m.Module, m.Epoch, m.Floor, m.Serial, e, applied, ErrGap)
	}
	var set event.PathSet
	for r, err := range m.reader.Missed(m.Index, applied) {
		if err != nil {
			return nil, err
		}
		r.Serial = 0
		set = append(set, r)
	}
	return set, set.Check()
}
