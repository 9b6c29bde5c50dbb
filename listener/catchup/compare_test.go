package catchup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

func TestCompareFindsEachDifferenceAndNothingElse(t *testing.T) {
	w := newWorld(t)
	at := start.Add(-time.Hour)
	nodes := []testenv.Node{
		testenv.Dir("d", 0o755), testenv.File("d/same", "1").At(at), testenv.File("d/size", "12").At(at), testenv.File("d/time", "1").At(at),
		testenv.File("d/content", "a").At(at), testenv.File("d/mode", "1").At(at), testenv.Dir("d-e", 0o755), testenv.File("d-e/f", "1").At(at),
		testenv.Symlink("link", "d"), testenv.File("type", "1").At(at), testenv.File("x.iso", "1").At(at), testenv.File("caf\xe9\n", "").At(at),
	}
	testenv.WriteTree(t, w.master, nodes...)
	testenv.WriteTree(t, w.src.Tree, nodes...)
	h := w.manifest(w.records(4), 3)
	d, err := w.src.Compare(t.Context(), h, "", 0)
	if err != nil || len(d.Set) != 0 || d.Serial != 9 || d.Entries != 12 {
		t.Fatalf("the same tree: %+v, %v", d, err)
	}
	here := func(name string) string { return filepath.Join(w.src.Tree, name) }
	check(t, os.WriteFile(here("d/size"), []byte("123"), 0o644))
	check(t, os.Chtimes(here("d/time"), start, start))
	check(t, os.WriteFile(here("d/content"), []byte("b"), 0o644))
	check(t, os.Chtimes(here("d/content"), at, at))
	check(t, os.Chmod(here("d/mode"), 0o600))
	check(t, os.Chmod(here("d"), 0o750))
	check(t, os.RemoveAll(here("d-e")))
	check(t, os.Remove(here("type")))
	check(t, os.Remove(here("x.iso")))
	check(t, os.MkdirAll(here(".mirrorbus/journal"), 0o755))
	testenv.WriteTree(t, w.src.Tree, testenv.Dir("type", 0o755), testenv.File("type/x", ""), testenv.Dir("old", 0o755), testenv.File("old/x", ""), testenv.File("local.iso", ""))
	w.src.Rules, err = filter.Parse([]string{"- *.iso"})
	check(t, err)
	d, err = w.src.Compare(t.Context(), h, "", 0)
	check(t, err)
	var got []string
	for _, r := range d.Set {
		got = append(got, string(r.Op)+" "+r.Path)
	}
	want := []string{"= d", "r d-e", "+ d-e/f", "= d/mode", "+ d/size", "+ d/time", "- old", "+ type"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	m, err := w.src.Manifest(t.Context(), h)
	check(t, err)
	defer func() { check(t, m.Close()) }()
	found := map[string]catchup.Kind{}
	for f, err := range w.src.Differences(t.Context(), m, true) {
		check(t, err)
		found[f.Record.Path] = f.Kind
	}
	if diff := cmp.Diff(map[string]catchup.Kind{
		"d": catchup.Mode, "d-e": catchup.Missing, "d-e/f": catchup.Missing, "d/mode": catchup.Mode, "d/size": catchup.Modified, "d/time": catchup.Modified,
		"d/content": catchup.Modified, "old": catchup.Extra, "old/x": catchup.Extra, "type": catchup.Modified, "type/x": catchup.Extra,
	}, found); diff != "" {
		t.Error(diff)
	}
}

// A mirror that had everything up to a serial is told what was touched since, and its tree is not read.
func TestCompareWithAPositionCostsNoWalk(t *testing.T) {
	w := newWorld(t)
	testenv.WriteTree(t, w.master, testenv.File("old", "1").At(start), testenv.File("new", "2").At(start))
	records := w.records(4)
	for i := range records {
		if records[i].Path == "new" {
			records[i].Serial = 7
		}
	}
	h := w.manifest(records, 3)
	testenv.WriteTree(t, w.src.Tree, testenv.File("extra", "nobody looks"))
	d, err := w.src.Compare(t.Context(), h, h.Epoch, 5)
	if err != nil || len(d.Set) != 1 || d.Set[0].Path != "new" || d.Set[0].Op != event.Write {
		t.Errorf("at serial 5: %+v, %v", d.Set, err)
	}
	if d, err = w.src.Compare(t.Context(), h, "00000000", 5); err != nil || len(d.Set) != 3 {
		t.Errorf("of another epoch: %+v, %v", d.Set, err)
	}
}

func TestCompareLooksBehindConfiguredLinksOnly(t *testing.T) {
	w := newWorld(t)
	at := start.Add(-time.Hour)
	testenv.WriteTree(t, w.master, testenv.Dir("big", 0o755), testenv.File("big/f", "1").At(at))
	elsewhere := t.TempDir()
	testenv.WriteTree(t, elsewhere, testenv.File("f", "1").At(at))
	check(t, os.Chmod(elsewhere, 0o755))
	testenv.WriteTree(t, w.src.Tree, testenv.Symlink("big", elsewhere))
	h := w.manifest(w.records(4), 3)
	d, err := w.src.Compare(t.Context(), h, "", 0)
	if err != nil || len(d.Set) != 2 {
		t.Errorf("a link that nobody configured: %v, %v", d.Set, err)
	}
	w.src.Links = []string{"big"}
	if d, err = w.src.Compare(t.Context(), h, "", 0); err != nil || len(d.Set) != 0 {
		t.Errorf("a configured link: %v, %v", d.Set, err)
	}
}

// A mirror that plain rsync filled is taken over without transferring anything again.
func TestAdoptionOfALargeTree(t *testing.T) {
	w := newWorld(t)
	for i := range 200 {
		dir := filepath.Join(w.master, fmt.Sprintf("d%03d", i))
		check(t, os.Mkdir(dir, 0o755))
		for k := range 100 {
			check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d", k)), nil, 0o644))
		}
	}
	_, err := w.runner.Run(t.Context(), rsync.Job{Mode: rsync.Full, MaxDelete: rsync.Unlimited})
	check(t, err)
	h := w.manifest(w.records(4), 4096)
	check(t, os.Remove(filepath.Join(w.src.Tree, "d100", "f50")))
	began := time.Now()
	d, err := w.src.Compare(t.Context(), h, "", 0)
	check(t, err)
	t.Logf("compared %d entries in %s", d.Entries, time.Since(began).Round(time.Millisecond))
	if len(d.Set) != 1 || d.Set[0].Path != "d100/f50" || d.Set[0].Op != event.Write {
		t.Errorf("%d differences", len(d.Set))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.src.Compare(ctx, h, "", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
