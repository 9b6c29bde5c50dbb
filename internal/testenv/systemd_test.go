package testenv

import (
	"os"
	"path/filepath"
	"testing"
)

// Nothing is left of a service manager when its test is over: no control group, and so no process.
func TestSystemdLeavesNothing(t *testing.T) {
	var groups []string
	t.Run("units", func(t *testing.T) {
		units, runtime := t.TempDir(), t.TempDir()
		writeFile(t, filepath.Join(units, "one.service"), "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo >"+units+"/done'\n")
		s := StartSystemd(t, units, runtime)
		groups = s.argv[6:]
		if out, err := s.Control("start", "one.service").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if _, err := os.Stat(filepath.Join(units, "done")); err != nil {
			t.Error(err)
		}
	})
	for _, g := range groups {
		left, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(g))
		if _, statErr := os.Stat(g); err != nil || len(left) > 0 || !os.IsNotExist(statErr) {
			t.Errorf("%s: %q is left, %v, %v", g, left, err, statErr)
		}
	}
}
