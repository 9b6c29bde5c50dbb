package testenv

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A Systemd is a running service manager of the user that runs the test. It sees no units but those in its folder.
type Systemd struct {
	server
	Runtime string // its XDG_RUNTIME_DIR, for systemctl --user
}

// StartSystemd starts one for the units in a folder, where it puts the few that all need. runtime is a folder for its sockets, with a short path.
// It is the only one in a mount namespace that says that the host was booted with systemd, and in a control group of its own.
func StartSystemd(t testing.TB, units, runtime string) *Systemd {
	t.Helper()
	NeedRoot(t)
	Need(t, "systemd-analyze", "systemctl", "unshare")
	groups := controlGroups(t)
	for _, name := range []string{"basic", "default", "paths", "sockets", "timers", "shutdown", "exit"} {
		writeFile(t, filepath.Join(units, name+".target"), "[Unit]\nDescription="+name+"\nDefaultDependencies=no\n")
	}
	writeFile(t, filepath.Join(units, "probe.service"), probe)
	if err := os.MkdirAll(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	const script = `for g; do echo $$ >$g/cgroup.procs; done; mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/systemd/inaccessible/dir &&
		>/run/systemd/inaccessible/reg && exec /lib/systemd/systemd --user`
	s := &Systemd{Runtime: runtime}
	s.server = server{
		t: t, argv: append([]string{"unshare", "--mount", "sh", "-c", script, "sh"}, groups...), logFile: filepath.Join(t.TempDir(), "log"), session: true,
		env: []string{"SYSTEMD_UNIT_PATH=" + units, "XDG_RUNTIME_DIR=" + runtime, "SYSTEMD_LOG_TARGET=console"},
		ready: func() error {
			_, err := os.Stat(filepath.Join(runtime, "systemd/private"))
			return err
		},
	}
	if err := s.start(); err != nil {
		Unable(t, "no service manager may run: "+err.Error())
	}
	t.Cleanup(s.Kill)
	if out, err := s.Control("start", "probe.service").CombinedOutput(); err != nil {
		Unable(t, fmt.Sprintf("services may not be closed in: %v: %s", err, out))
	}
	return s
}

// probe is closed in as our units are.
const probe = `[Service]
Type=oneshot
ExecStart=/bin/true
ProtectSystem=strict
ProtectHome=yes
PrivateDevices=yes
PrivateNetwork=yes
ProtectProc=invisible
ProtectKernelLogs=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
SystemCallFilter=@system-service
`

// Control is systemctl for this manager.
func (s *Systemd) Control(args ...string) *exec.Cmd {
	cmd := exec.Command("systemctl", append([]string{"--user"}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+s.Runtime)
	return cmd
}

// controlGroups makes a control group in each hierarchy that a service manager uses, and removes it, with those below it, at the end of the test. It has one
// name in all: the manager makes what it finds in one of them in the others.
func controlGroups(t testing.TB) (all []string) {
	t.Helper()
	name := "mirrorbus-test-" + rand.Text()
	for _, root := range []string{"systemd", "unified", ""} {
		dir := filepath.Join("/sys/fs/cgroup", root)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			Unable(t, "no control group may be made: "+err.Error())
		}
		all = append(all, dir)
		t.Cleanup(func() { removeGroups(t, dir) })
	}
	if all == nil {
		Unable(t, "there are no control groups")
	}
	return all
}

// removeGroups removes a control group. The processes in it have just been ended.
func removeGroups(t testing.TB, dir string) {
	WaitFor(t, 10*time.Second, func() error {
		var groups []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return err
		})
		for _, g := range slices.Backward(groups) {
			err = errors.Join(err, os.Remove(g))
		}
		return err
	})
}
