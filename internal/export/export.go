// Package export reads and writes the folder .mirrorbus/ of a module: head, journal and manifest as a mirror reads them through rsync.
// event/FORMAT.md section 6 describes the files.
//
// Each file is written under a temporary name, synced and renamed, in the order shards, index, journal entries, head. So a reader that begins
// with the head finds everything the head names, whenever it looks and whenever the writer died. Nothing that a Reader returns is trusted: lines
// are still to be verified by an event.Gate; a manifest counts because a verified head names its digest.
package export

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/mirrorbus/mirrorbus/event"
)

// HeadFile holds the signed head.
const HeadFile = "head"

// The folders for entries and for the manifest.
const (
	JournalDir  = "journal"
	ManifestDir = "manifest"
)

// NowDir holds the index and the shards of the newest manifest and nothing else, as second names of the files in ManifestDir: a reader that has some
// of them gets the rest in one go, without having seen the index before. It may lag, and is not there on a file system without hard links.
const NowDir = ManifestDir + "/now"

// bucketSize is how many entries share a folder.
const bucketSize = 64

// Bucket is the number of the folder that holds the entry of a serial, which must not be 0.
func Bucket(s event.Serial) uint64 { return uint64(s-1) / bucketSize }

// EpochDir holds the buckets of an epoch.
func EpochDir(e event.Epoch) string { return path.Join(JournalDir, string(e)) }

// BucketDir holds up to 64 entries.
func BucketDir(e event.Epoch, bucket uint64) string {
	return path.Join(EpochDir(e), fmt.Sprintf("%010d", bucket))
}

// EntryFile holds the entry of a serial.
func EntryFile(e event.Epoch, s event.Serial) string {
	return path.Join(BucketDir(e, Bucket(s)), fmt.Sprintf("%015d", s))
}

// IndexFile holds the manifest index with this digest.
func IndexFile(d event.Digest) string { return path.Join(ManifestDir, d.String()+".index") }

// ShardFile holds the manifest shard with this digest.
func ShardFile(d event.Digest) string { return path.Join(ManifestDir, d.String()+".zst") }

// ErrNotExported says that there is no such head, entry, index or shard: not yet, or no more.
var ErrNotExported = errors.New("not in the export folder")

// Caps on files in bytes, applied before reading.
const (
	MaxIndex     = 64 << 20
	MaxShard     = 64 << 20  // as stored
	maxShardText = 512 << 20 // decompressed
)

// open opens dir, which must be a folder itself and not a link to one, as the root that no access leaves.
func open(dir string) (*os.Root, error) {
	before, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, fmt.Errorf("export folder %s: is no folder but %s; remove it", dir, before.Mode().Type())
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("export folder %s: was replaced while it was opened", dir)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// readFile reads a regular file of at most max bytes.
func readFile(root *os.Root, name string, max int64) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO put there must not hold the reader up
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotExported, filepath.Join(root.Name(), name))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read %s: is no regular file", f.Name())
	case info.Size() > max:
		return nil, fmt.Errorf("%w: %s is %d bytes long, at most %d", event.ErrFormat, f.Name(), info.Size(), max)
	}
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("%w: %s grew beyond %d bytes", event.ErrFormat, f.Name(), max)
	}
	return b, err
}
