package manifest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger/manifest"
)

// A database that was damaged behind its owner's back is named, with the remedy, whoever meets it first; what is read of it is never taken for the tree. The remedy
// works.
func TestDamagedManifestIsNamedAndMended(t *testing.T) {
	const page = 4096
	root := t.TempDir()
	for i := range 3000 {
		put(t, root, fmt.Sprintf("dir%02d/a-file-with-a-name-%04d", i%30, i))
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut short": func(b []byte) []byte { return b[:len(b)/2/page*page] },
		"one byte of each page": func(b []byte) []byte {
			for at := 3 * page; at < len(b); at += page {
				b[at] ^= 0xff
			}
			return b
		},
		"overwritten": func(b []byte) []byte {
			for at := 3 * page; at < len(b); at++ {
				b[at] = 0xa5
			}
			return b
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "manifest.db")
			m, err := manifest.Open(t.Context(), file, module, manifest.Options{})
			check(t, err)
			_, err = m.Build(t.Context(), root, epoch, 0, nil)
			check(t, err)
			check(t, m.Close())
			b, err := os.ReadFile(file)
			check(t, err)
			check(t, os.WriteFile(file, damage(b), 0o600))
			named := func(what string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), file) || fault.HintOf(err) == "" || fault.StatusOf(err) != fault.Failed {
					t.Errorf("%s: %v, hint %q", what, err, fault.HintOf(err))
				}
			}
			if m, err = manifest.Open(t.Context(), file, module, manifest.Options{}); err != nil {
				named("open", err)
			} else {
				_, err := m.Compare(t.Context(), root, manifest.CompareOptions{}, nil)
				named("compare", err)
				_, err = m.Apply(t.Context(), manifest.Change{Serial: 1}, root)
				named("apply", err)
				_, err = m.Build(t.Context(), root, epoch, 1, nil)
				named("build", err)
				check(t, m.Close())
			}
			for _, suffix := range []string{"", "-wal", "-shm"} {
				check(t, os.RemoveAll(file+suffix))
			}
			m = open(t, file, manifest.Options{})
			_, err = m.Build(t.Context(), root, epoch, 1, nil)
			check(t, err)
			if d, err := m.Compare(t.Context(), root, manifest.CompareOptions{}, nil); err != nil || len(d.Set) > 0 {
				t.Errorf("built anew it differs: %v, %v", d.Set, err)
			}
		})
	}
}
