package manifest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

const (
	module = event.Module("m")
	epoch  = event.Epoch("0123abcd")
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, file string, o manifest.Options) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Open(context.Background(), file, module, o)
	check(t, err)
	t.Cleanup(func() { check(t, m.Close()) })
	return m
}

func build(t testing.TB, root string, o manifest.Options) *manifest.Manifest {
	t.Helper()
	m := open(t, filepath.Join(t.TempDir(), "manifest.db"), o)
	_, err := m.Build(t.Context(), root, epoch, 0, nil)
	check(t, err)
	return m
}

// records are the whole manifest; live leaves out tombstones and serials.
func records(t testing.TB, m *manifest.Manifest, prefix string) []event.Record {
	t.Helper()
	all := []event.Record{}
	for r, err := range m.Records(t.Context(), prefix) {
		check(t, err)
		all = append(all, r)
	}
	return all
}

func live(t testing.TB, m *manifest.Manifest) []event.Record {
	t.Helper()
	all := slices.DeleteFunc(records(t, m, ""), func(r event.Record) bool { return r.Op == event.Gone })
	for i := range all {
		all[i].Serial = 0
	}
	return all
}

func put(t testing.TB, root string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		full := filepath.Join(root, p)
		check(t, os.MkdirAll(filepath.Dir(full), 0o755))
		check(t, os.WriteFile(full, []byte(p), 0o644))
	}
}

// say is a path set of ops and paths, without lstat data: the manifest is to look.
func say(t testing.TB, words ...string) event.PathSet {
	t.Helper()
	var all []event.Record
	for _, w := range words {
		r := event.Record{Op: event.Op(w[0]), Path: w[1:]}
		r.Path, r.From, _ = strings.Cut(r.Path, "<")
		all = append(all, r)
	}
	s, err := event.NewPathSet(all)
	check(t, err)
	return s
}

func apply(t testing.TB, m *manifest.Manifest, root string, serial event.Serial, words ...string) manifest.Applied {
	t.Helper()
	done, err := m.Apply(t.Context(), manifest.Change{Serial: serial, Set: say(t, words...), Before: time.Now().Add(time.Hour)}, root)
	check(t, err)
	return done
}

// summary writes each record as op, path and serial.
func summary(all []event.Record) []string {
	s := make([]string, len(all))
	for i, r := range all {
		s[i] = fmt.Sprintf("%c%s@%d", r.Op, r.Path, r.Serial)
	}
	return s
}
