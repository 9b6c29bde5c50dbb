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

// Manifest fetches the manifest that a verified head names, in one connection for the index and one for the shards that are not here yet. The error
// Is export.ErrNotExported if the upstream does not have all of it: it may just have made a new one, which its next head will name.
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
	name := export.IndexFile(h.Manifest)
	if err := s.forget(name); err != nil {
		return nil, export.Index{}, err
	}
	if err := s.fetch(ctx, []string{name}, export.MaxIndex); err != nil {
		return nil, export.Index{}, fmt.Errorf("fetch the manifest's index: %w", err)
	}
	return s.openIndex(h)
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
		if err := s.forget(export.ShardFile(shard.Digest)); err != nil {
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
	files, err := os.ReadDir(filepath.Join(s.export(), export.ManifestDir))
	for _, f := range files {
		if !keep[f.Name()] {
			err = errors.Join(err, s.forget(path.Join(export.ManifestDir, f.Name())))
		}
	}
	return err
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
