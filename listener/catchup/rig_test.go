package catchup_test

import (
	"context"
	"crypto/ed25519"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

var (
	_ listener.CatchUp  = (*catchup.Source)(nil)
	_ listener.Measurer = (*catchup.Source)(nil)
)

const (
	module = event.Module("m")
	epoch  = event.Epoch("0123abcd")
)

var start = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

// A world is a master with an export folder behind a real rsync daemon, and a mirror's Source.
type world struct {
	t      *testing.T
	master string
	writer *export.Writer
	key    ssh.Signer
	daemon *testenv.Rsyncd
	runner *rsync.Runner
	src    *catchup.Source
	asked  []string // all names that were fetched
	calls  int
}

// Fetch counts and passes on.
type counting struct {
	w    *world
	next catchup.Fetcher
}

func (c counting) Fetch(ctx context.Context, names []string, into string, max int64) ([]string, error) {
	c.w.calls++
	c.w.asked = append(c.w.asked, names...)
	return c.next.Fetch(ctx, names, into, max)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, master: filepath.Join(t.TempDir(), "master")}
	mirror := filepath.Join(t.TempDir(), "mirror")
	for _, dir := range []string{w.master, mirror} {
		check(t, os.Mkdir(dir, 0o755))
	}
	w.daemon = testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "m", Path: w.master})
	features, err := rsync.Probe(t.Context(), "")
	check(t, err)
	w.runner, err = rsync.New(rsync.Config{
		Upstream: rsync.Upstream{URL: w.daemon.URL("m")}, Dest: mirror, LockFile: filepath.Join(t.TempDir(), "lock"), Features: features,
	})
	check(t, err)
	w.src = &catchup.Source{Module: module, State: filepath.Join(t.TempDir(), "state"), Tree: mirror}
	w.src.Fetcher = counting{w, catchup.Rsync{Runner: w.runner}}
	w.key, err = ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	check(t, err)
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// export opens the export folder; until then there is none.
func (w *world) export() *export.Writer {
	if w.writer == nil {
		var err error
		w.writer, err = export.OpenWriter(filepath.Join(w.master, event.ExportDir))
		check(w.t, err)
		w.t.Cleanup(func() { check(w.t, w.writer.Close()) })
	}
	return w.writer
}

// announce writes journal entries from one serial to another.
func (w *world) announce(from, to event.Serial) {
	set := event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, Path: "a"}}
	prev := event.Digest{}
	for s := event.Serial(1); s <= to; s++ {
		line, err := event.Seal(event.Announcement{Kind: event.Change, Module: module, Epoch: epoch, Serial: s, At: start, Prev: prev,
			Set: set.Digest(), Count: 1}, w.key)
		check(w.t, err)
		said, err := event.Read(line)
		check(w.t, err)
		if prev = said.Digest; s >= from {
			check(w.t, w.export().PutEntry(epoch, s, line, envelope.Compress(set.Encode())))
		}
	}
}

// head writes a head and returns it.
func (w *world) head(serial event.Serial, manifest event.Digest) event.Head {
	h := event.Head{Module: module, Epoch: epoch, Serial: serial, At: start, TTL: time.Hour, Last: event.Sum(nil), Manifest: manifest}
	line, err := event.Seal(h, w.key)
	check(w.t, err)
	check(w.t, w.export().PutHead(line))
	return h
}

// records are the master's tree as a manifest has it.
func (w *world) records(serial event.Serial) []event.Record {
	var all []event.Record
	check(w.t, filepath.WalkDir(w.master, func(p string, d fs.DirEntry, err error) error {
		check(w.t, err)
		rel, err := filepath.Rel(w.master, p)
		check(w.t, err)
		if rel == event.ExportDir {
			return fs.SkipDir
		}
		info, err := d.Info()
		check(w.t, err)
		r := event.Record{Op: event.Write, Mode: uint32(info.Mode().Perm()), MTime: event.StampOf(info.ModTime()), Path: rel, Serial: serial}
		switch {
		case rel == ".":
			return nil
		case d.IsDir():
			r.Mode |= event.ModeDir
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			check(w.t, err)
			r.Mode, r.Size, r.Sum = r.Mode|event.ModeFile, info.Size(), event.Sum(b)
		default:
			r.Mode, r.Size = r.Mode|event.ModeLink, info.Size()
		}
		all = append(all, r)
		return nil
	}))
	slices.SortFunc(all, func(a, b event.Record) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// manifest exports records in shards and returns the head that names them.
func (w *world) manifest(records []event.Record, size int) event.Head {
	ix := export.Index{Module: module, Epoch: epoch, Serial: 9, Floor: 3, Entries: int64(len(records))}
	bodies := map[event.Digest][]byte{}
	for part := range slices.Chunk(records, size) {
		s, b := export.EncodeShard(part)
		ix.Shards, bodies[s.Digest] = append(ix.Shards, s), b
	}
	d, err := w.export().PutManifest(ix, event.Digest{}, func(s export.Shard) ([]byte, error) { return bodies[s.Digest], nil })
	check(w.t, err)
	return w.head(9, d)
}
