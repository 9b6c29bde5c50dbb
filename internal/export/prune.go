package export

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// Keep says what Prune leaves.
type Keep struct {
	Epoch    event.Epoch  // other epochs go
	From     event.Serial // entries below go. Not above the serial of Manifest, or manifest and journal no longer lead to the head
	Manifest event.Digest // the index that the head names; zero if none
	Grace    time.Duration
	Now      time.Time
}

// Prune removes journal entries and manifests that nobody needs any more. An older manifest stays, with its shards, for k.Grace after it was
// replaced, so that a reader in the middle of it can finish.
func (w *Writer) Prune(k Keep) error {
	failpoint.Here("export.prune")
	return errors.Join(w.pruneEpochs(k), w.pruneEntries(k), w.pruneManifests(k))
}

func (w *Writer) pruneEpochs(k Keep) error {
	names, err := w.names(JournalDir)
	for _, name := range names {
		if name != string(k.Epoch) {
			err = errors.Join(err, w.root.RemoveAll(path.Join(JournalDir, name)))
		}
	}
	return err
}

func (w *Writer) pruneEntries(k Keep) error {
	if k.From <= 1 {
		return nil
	}
	buckets, err := w.names(EpochDir(k.Epoch))
	if err != nil {
		return err
	}
	var errs []error
	for _, bucket := range buckets {
		n, err := strconv.ParseUint(bucket, 10, 64)
		dir := path.Join(EpochDir(k.Epoch), bucket)
		switch {
		case err != nil || n > Bucket(k.From): // not ours, or all of it stays
		case n < Bucket(k.From):
			errs = append(errs, w.root.RemoveAll(dir))
		default:
			errs = append(errs, w.pruneBucket(dir, k.From))
		}
	}
	return errors.Join(errs...)
}

func (w *Writer) pruneBucket(dir string, from event.Serial) error {
	names, err := w.names(dir)
	for _, name := range names {
		if s, perr := strconv.ParseUint(name, 10, 64); perr == nil && event.Serial(s) < from {
			err = errors.Join(err, gone(w.root.Remove(path.Join(dir, name))))
		}
	}
	return err
}

func (w *Writer) pruneManifests(k Keep) error {
	names, err := w.names(ManifestDir)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, name := range names {
		digest, isIndex := strings.CutSuffix(name, ".index")
		if !isIndex {
			continue
		}
		info, err := w.root.Lstat(path.Join(ManifestDir, name))
		if err != nil {
			return gone(err)
		}
		d, err := event.ParseDigest(digest)
		if err != nil || (d != k.Manifest && k.Now.Sub(info.ModTime()) > k.Grace) {
			continue
		}
		needed[name] = true
		if err := w.need(d, d == k.Manifest, needed); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range names {
		if !needed[name] && name != path.Base(NowDir) {
			errs = append(errs, gone(w.root.Remove(path.Join(ManifestDir, name))))
		}
	}
	return errors.Join(errs...)
}

// need marks the shards of an index. An older index that cannot be read keeps nothing; the current one must be readable.
func (w *Writer) need(d event.Digest, current bool, needed map[string]bool) error {
	ix, err := w.Reader().Manifest(d)
	if err != nil && current {
		return err
	}
	for _, s := range ix.Shards {
		needed[path.Base(ShardFile(s.Digest))] = true
	}
	return nil
}

// names lists a folder; one that is not there is empty.
func (w *Writer) names(dir string) ([]string, error) {
	entries, err := fs.ReadDir(w.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}
