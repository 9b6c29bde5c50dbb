package bench_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/source"
)

// scans is line 14: the large module is compared with its manifest, beside find -printf of the same tree, and beside the program that makes the lists of
// quick-fedora-mirror, neither of which tells a difference yet; what the manifest takes on disk and exported, beside find's list and that compressed by zstd;
// and the merge of two exported manifests, which is what a mirror does that compares.
func (b *bench) scans() error {
	s, err := b.siteOf(b.big)
	if err != nil {
		return err
	}
	if err := s.scan(); err != nil { // what earlier lines have left
		return err
	}
	var took scansTook
	list, qfm := filepath.Join(s.dir, "list"), b.qfm()
	for range b.rounds {
		if err := s.scanRound(&took, list, qfm); err != nil {
			return err
		}
	}
	what, n := fmt.Sprintf("scan of %d files, ", b.big), b.rounds
	b.add(row{line: "14", what: what + "nothing differs", ours: median(took.same), against: "find -printf", theirs: median(took.find), rounds: n})
	if qfm != "" {
		b.add(row{line: "14", what: what + "nothing differs", ours: median(took.same), against: "create-filelist of quick-fedora-mirror", theirs: median(took.lists), rounds: n})
	}
	b.add(row{line: "14", what: what + "100 differ and are announced", ours: median(took.differs), against: "find -printf", theirs: median(took.find), rounds: n})
	return errors.Join(s.sizes(list), s.merges())
}

// A scansTook is what each side took, round by round.
type scansTook struct{ same, differs, find, lists []time.Duration }

// scanRound scans and lists a tree in which nothing differs, and scans one in which a hundred files do. qfm may be "".
func (s *site) scanRound(took *scansTook, list, qfm string) error {
	err := clocked(&took.same, s.scan)
	if err == nil {
		err = clocked(&took.find, func() error {
			_, err := s.b.output("", "sh", "-c", `find "$0" -printf '%m %s %T@ %P\0' > "$1"`, s.tree, list)
			return err
		})
	}
	if err == nil && qfm != "" {
		err = clocked(&took.lists, func() error { return s.b.createFilelist(qfm, s.tree, s.dir) })
	}
	if err == nil {
		err = s.rewrite(some(100, s.b.big))
	}
	if err == nil {
		err = clocked(&took.differs, s.scan)
	}
	return err
}

// clocked notes how long f takes.
func clocked(took *[]time.Duration, f func() error) error {
	start := time.Now()
	err := f()
	*took = append(*took, time.Since(start))
	return err
}

// scan has the hub scan.
func (s *site) scan() error {
	return source.Remote{Client: s.control()}.Scan(s.b.ctx, trigger.ScanRequest{Module: module}, func(trigger.Scanned) error { return nil })
}

// exported is the newest manifest that lies in the tree.
func (s *site) exported() (*export.Reader, export.Index, error) {
	r, err := export.OpenReader(s.at(event.ExportDir))
	if err != nil {
		return nil, export.Index{}, err
	}
	line, err := r.Head()
	if err != nil {
		return r, export.Index{}, err
	}
	head, err := event.Read(line)
	if err != nil {
		return r, export.Index{}, err
	}
	ix, err := r.Manifest(head.Head.Manifest)
	return r, ix, err
}

func (s *site) sizes(list string) error {
	r, ix, err := s.exported()
	if err != nil {
		return err
	}
	defer r.Close()                                                              //nolint:errcheck // only read
	files, err := filepath.Glob(filepath.Join(s.dir, "state", "manifest-*.db*")) // with what was written last
	if err != nil {
		return err
	}
	var database float64
	for _, file := range files {
		if strings.HasSuffix(file, "-shm") {
			continue
		}
		size, err := sizeOf(file)
		if err != nil {
			return err
		}
		database += size
	}
	plain, err := sizeOf(list)
	if err != nil {
		return err
	}
	var compressed int64
	for _, shard := range ix.Shards {
		compressed += shard.Bytes
	}
	what := fmt.Sprintf("manifest of %d files, ", s.b.big)
	s.b.add(row{line: "14", what: what + "on disk", ours: database, against: "find's list", theirs: plain, unit: byteCount, rounds: 1})
	packed := row{line: "14", what: what + "exported", ours: float64(compressed), unit: byteCount, rounds: 1}
	if zstd, err := exec.LookPath("zstd"); err == nil {
		if _, err := s.b.output("", zstd, "-q", "-f", "-3", list, "-o", list+".zst"); err != nil {
			return err
		}
		packed.against = "find's list by zstd -3"
		if packed.theirs, err = sizeOf(list + ".zst"); err != nil {
			return err
		}
	}
	s.b.add(packed)
	return nil
}

func sizeOf(path string) (float64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return float64(info.Size()), nil
}

// merges reads two manifests side by side, and the two lists of find as comm(1) does.
func (s *site) merges() error {
	r, ix, err := s.exported()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	var ours, theirs []time.Duration
	var most uint64
	lines := filepath.Join(s.dir, "lines")
	if _, err := s.b.output("", "sh", "-c", `find "$0" -printf '%P %m %s %T@\n' | LC_ALL=C sort > "$1"`, s.tree, lines); err != nil {
		return err
	}
	for range s.b.rounds {
		runtime.GC()
		var mem runtime.MemStats
		start, pairs := time.Now(), int64(0)
		for p, err := range export.Merge(r.Records(ix), r.Records(ix)) {
			if err != nil {
				return err
			}
			if p.A == nil || p.B == nil || *p.A != *p.B {
				return fmt.Errorf("a manifest differs from itself in %q", p.Path())
			}
			if pairs++; pairs%(1<<12) == 1 {
				runtime.ReadMemStats(&mem)
				most = max(most, mem.HeapInuse)
			}
		}
		ours = append(ours, time.Since(start))
		if pairs != ix.Entries {
			return fmt.Errorf("%d pairs of %d entries", pairs, ix.Entries)
		}
		start = time.Now()
		if out, err := s.b.output("", "env", "LC_ALL=C", "comm", "-3", lines, lines); err != nil || strings.TrimSpace(out) != "" {
			return errors.Join(err, fmt.Errorf("comm(1) finds %d bytes", len(out)))
		}
		theirs = append(theirs, time.Since(start))
	}
	what := fmt.Sprintf("two manifests of %d entries, ", ix.Entries)
	s.b.add(row{line: "14", what: what + "compared", ours: median(ours), against: "comm(1) of two sorted lists", theirs: median(theirs), rounds: len(ours)})
	s.b.add(row{line: "14", what: what + "most memory in use", ours: float64(most), unit: byteCount, rounds: len(ours)})
	return nil
}
