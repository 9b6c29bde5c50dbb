package catchup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/listener"
)

// Measure implements listener.Measurer. The index tells how large each shard is; it is fetched unless it is here, and is some hundred bytes for 4,000 names.
func (s *Source) Measure(ctx context.Context, h event.Head) (listener.Size, error) {
	if h.Module != s.Module || h.Manifest.IsZero() {
		return listener.Size{}, fmt.Errorf("manifest of module %s: %w: the head of module %s names none", s.Module, export.ErrNotExported, h.Module)
	}
	r, ix, err := s.namedIndex(ctx, h)
	if err != nil {
		return listener.Size{}, err
	}
	size := listener.Size{Serial: ix.Serial, Floor: ix.Floor, Names: ix.Entries}
	for _, shard := range ix.Shards {
		if !s.here(shard) {
			size.Bytes += shard.Bytes
		}
	}
	return size, r.Close()
}

// here tells whether a shard was fetched before, going by its size: what is in it is checked when it is read.
func (s *Source) here(shard export.Shard) bool {
	info, err := os.Lstat(filepath.Join(s.export(), filepath.FromSlash(export.ShardFile(shard.Digest))))
	return err == nil && info.Mode().IsRegular() && info.Size() == shard.Bytes
}
