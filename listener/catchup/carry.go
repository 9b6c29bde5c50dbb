package catchup

import (
	"context"
	"errors"
	"os"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// Carry copies the manifest that a verified head names into an export folder, for a tier below. It is fetched first where it is not here yet.
func (s *Source) Carry(ctx context.Context, h event.Head, into *export.Writer) error {
	m, err := s.Manifest(ctx, h)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(s.export())
	if err != nil {
		return errors.Join(err, m.Close())
	}
	_, err = into.PutManifest(m.Index, event.Digest{}, func(shard export.Shard) ([]byte, error) {
		return root.ReadFile(export.ShardFile(shard.Digest))
	})
	return errors.Join(err, root.Close(), m.Close())
}
