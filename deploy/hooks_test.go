package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// Every shell script here passes shellcheck, and none evaluates what others name.
func TestShellScripts(t *testing.T) {
	shellcheck := testenv.Need(t, "shellcheck")
	var scripts []string
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text := read(t, path)
		if !strings.HasPrefix(text, "#!/bin/sh\n") {
			return nil
		}
		scripts = append(scripts, path)
		if strings.Contains(text, "eval ") {
			t.Errorf("%s: eval", path)
		}
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s is not executable: %v", path, err)
		}
		return nil
	})
	if err != nil || len(scripts) < 6 {
		t.Fatalf("found %q, %v", scripts, err)
	}
	if out, err := exec.Command(shellcheck, append([]string{"--shell=sh"}, scripts...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// The units that scan a module when something changed say nothing that systemd does not know. The program need not be there.
func TestHookUnits(t *testing.T) {
	analyze := testenv.Need(t, "systemd-analyze")
	dir := t.TempDir()
	var files []string
	for _, kind := range []string{"path", "service"} {
		text := strings.Replace(read(t, "hooks/mirrorbus-publish@."+kind), "/usr/bin/mirrorbus", testenv.Need(t, "true"), 1)
		files = append(files, write(t, filepath.Join(dir, "mirrorbus-publish@fedora."+kind), text))
	}
	hub := strings.Replace(read(t, "systemd/mirrorbus-hub.service"), "/usr/bin/mirrorbus", testenv.Need(t, "true"), 1)
	write(t, filepath.Join(dir, "mirrorbus-hub.service"), hub)
	out, err := exec.Command(analyze, append([]string{"verify"}, files...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "mirrorbus-publish") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", "--threshold=20", files[1]).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}

// The page of the hooks names each of them, and nothing that is not there.
func TestHooksPage(t *testing.T) {
	page := read(t, "hooks/README.md")
	entries, err := os.ReadDir("hooks")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), ".service"); e.Name() != "README.md" && !strings.Contains(page, name) {
			t.Errorf("%s is not on the page", e.Name())
		}
	}
	links(t, "hooks", page)
}
