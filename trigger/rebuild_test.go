package trigger_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A manifest that is built anew takes the tree as it is for known. Of what nobody had announced it says so, and how much that is; it announces nothing.
func TestAManifestBuiltAnewTellsWhatNobodyAnnounced(t *testing.T) {
	m := newMaster(t)
	h, _ := m.running()
	before := serial(t, h)
	rebuilt := func(want ...string) {
		t.Helper()
		b, err := trigger.Rebuild(t.Context(), h, "m")
		check(t, err)
		said := strings.Join(b.Notes, "; ")
		if !b.Done || (len(want) == 0) != (said == "") {
			t.Errorf("it says %q, want %q", b, want)
		}
		for _, text := range want {
			if !strings.Contains(b.String(), text) {
				t.Errorf("it says %q, want %q", b, text)
			}
		}
	}
	rebuilt()
	m.write("also")
	m.write("unsaid")
	check(t, os.Remove(filepath.Join(m.tree, "there")))
	rebuilt("2 added", "1 removed", `for one "also"`, "published by name")
	rebuilt()
	if s := scan(t, h, trigger.ScanRequest{}); s.Published != nil || serial(t, h) != before {
		t.Errorf("a scan finds %+v", s)
	}
}

// A manifest of another epoch than the journal, as a state folder of two ages has it, is of no use, and says so; the hub builds another by itself.
func TestManifestThatDoesNotBelongIsBuiltAnew(t *testing.T) {
	m := newMaster(t)
	m.write("there")
	parts, closeParts := m.open()
	check(t, m.hubOf(parts).BuildManifest(t.Context(), "m"))
	_, err := parts.Journal.NewEpoch(t.Context(), "m")
	check(t, err)
	closeParts()
	parts, _ = m.open()
	h := m.hubOf(parts)
	if _, err := scanned(t, h, trigger.ScanRequest{}); err == nil || !strings.Contains(err.Error(), "does not lead on") {
		t.Errorf("a scan by it: %v", err)
	}
	run(t, h.Run)
	testenv.WaitFor(t, bound, func() error {
		st, err := parts.Journal.State(t.Context(), "m")
		if err == nil && st.Manifest.IsZero() {
			err = errors.New("no head names a manifest")
		}
		return err
	})
	testenv.WaitFor(t, bound, func() error {
		s, err := scanned(t, h, trigger.ScanRequest{})
		if err == nil && s.Published != nil {
			t.Errorf("a scan finds %+v", s)
		}
		return err
	})
}
