package export

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
)

// A Writer keeps one export folder. There must be one at a time. A manifest may be put while entries and heads are, and entries side by side; nothing
// may be put of what Prune is told to remove.
// Files are 0644 and folders 0755 whatever the umask, since rsync daemons read as nobody.
type Writer struct {
	root *os.Root
}

const tempPrefix = ".tmp-"

// OpenWriter opens or makes the export folder dir, whose parent must exist, and removes what an interrupted writer left half done.
// It never follows a link that stands in place of the folder, and nothing it does later can leave the folder.
func OpenWriter(dir string) (*Writer, error) {
	if err := os.Mkdir(dir, 0o755); err == nil {
		err = os.Chmod(dir, 0o755)
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make export folder: %w", err)
	}
	root, err := open(dir)
	if err != nil {
		return nil, err
	}
	w := &Writer{root}
	if err := w.sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("export folder %s: %w", dir, err), root.Close())
	}
	return w, nil
}

// Close frees the folder.
func (w *Writer) Close() error { return w.root.Close() }

// Reader reads what is being written. It ends with the Writer.
func (w *Writer) Reader() *Reader { return &Reader{w.root} }

// Current tells whether dir is still the folder that was opened: somebody may have removed or replaced it.
func (w *Writer) Current() bool {
	is, err1 := os.Lstat(w.root.Name())
	was, err2 := w.root.Stat(".")
	return err1 == nil && err2 == nil && os.SameFile(is, was)
}

// HasEntry tells whether the journal entry of a serial is there.
func (w *Writer) HasEntry(e event.Epoch, s event.Serial) bool {
	info, err := w.root.Lstat(EntryFile(e, s))
	return err == nil && info.Mode().IsRegular()
}

// PutEntry writes the journal entry of a serial: its line and its compressed path set (nil if that is not to be had).
func (w *Writer) PutEntry(e event.Epoch, s event.Serial, line, compressedSet []byte) error {
	return w.put(EntryFile(e, s), envelope.Encode(line, compressedSet))
}

// PutHead writes the head. What the head names must have been written before.
func (w *Writer) PutHead(line []byte) error {
	return w.put(HeadFile, envelope.Encode(line, nil))
}

// PutShard writes a shard ahead of the index that will name it.
func (w *Writer) PutShard(s Shard, b []byte) error {
	if w.has(s) {
		return nil
	}
	if got := event.Sum(b); got != s.Digest {
		return fmt.Errorf("%w: manifest shard %s: its digest is %s", event.ErrFormat, s.Digest, got)
	}
	return w.put(ShardFile(s.Digest), b)
}

// has tells whether a shard is there: it is named by its content, and got the name only when whole.
func (w *Writer) has(s Shard) bool {
	info, err := w.root.Lstat(ShardFile(s.Digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == s.Bytes
}

// PutManifest writes what is missing of a manifest: shards, for whose bytes it asks, then the index. It returns the digest for the head to name.
// The manifest that previous names (zero for none) stays readable for Keep.Grace from now on.
func (w *Writer) PutManifest(ix Index, previous event.Digest, shard func(Shard) ([]byte, error)) (event.Digest, error) {
	for _, s := range ix.Shards {
		if w.has(s) {
			continue
		}
		b, err := shard(s)
		if err == nil {
			err = w.PutShard(s, b)
		}
		if err != nil {
			return event.Digest{}, err
		}
	}
	failpoint.Here("export.index")
	text := ix.Encode()
	d := event.Sum(text)
	if err := w.put(IndexFile(d), text); err != nil {
		return event.Digest{}, err
	}
	return d, errors.Join(w.show(ix, d), w.touch(previous))
}

// show makes NowDir hold what this manifest consists of. A reader that meets it half way finds the rest in ManifestDir.
func (w *Writer) show(ix Index, index event.Digest) error {
	files := []string{IndexFile(index)}
	for _, s := range ix.Shards {
		files = append(files, ShardFile(s.Digest))
	}
	if err := w.mkdir(NowDir); err != nil {
		return err
	}
	there, err := w.names(NowDir)
	if err != nil {
		return err
	}
	failpoint.Here("export.now")
	left := map[string]bool{}
	for _, name := range there {
		left[name] = true
	}
	for _, f := range files {
		if name := path.Base(f); left[name] {
			delete(left, name)
		} else if err := w.root.Link(f, path.Join(NowDir, name)); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) {
			return w.root.RemoveAll(NowDir) // this file system has no hard links
		} else if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("export %s: %w", NowDir, err)
		}
	}
	for name := range left {
		err = errors.Join(err, w.root.RemoveAll(path.Join(NowDir, name)))
	}
	return err
}

// touch notes on an index that it is being replaced now.
func (w *Writer) touch(index event.Digest) error {
	if index.IsZero() {
		return nil
	}
	now := time.Now()
	if err := w.root.Chtimes(IndexFile(index), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// put writes a file whole or not at all.
func (w *Writer) put(name string, b []byte) error {
	if err := w.mkdir(path.Dir(name)); err != nil {
		return err
	}
	temp := path.Join(path.Dir(name), tempPrefix+rand.Text())
	err := w.create(temp, b)
	if err == nil {
		failpoint.Here("export.rename")
		err = w.root.Rename(temp, name)
	}
	if err != nil {
		return fmt.Errorf("export %s: %w", name, errors.Join(err, gone(w.root.Remove(temp))))
	}
	return nil
}

func (w *Writer) create(name string, b []byte) error {
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync() // or a power cut could leave an empty file under the final name
	}
	return errors.Join(err, f.Close())
}

func (w *Writer) mkdir(dir string) error {
	if info, err := w.root.Lstat(dir); err == nil && info.IsDir() {
		return nil
	}
	made := ""
	for part := range strings.SplitSeq(dir, "/") {
		made = path.Join(made, part)
		err := w.root.Mkdir(made, 0o755)
		if err == nil {
			err = w.root.Chmod(made, 0o755)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}

// sweep removes temporary files.
func (w *Writer) sweep() error {
	return fs.WalkDir(w.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(d.Name(), tempPrefix) {
			return err
		}
		return w.root.Remove(name)
	})
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
