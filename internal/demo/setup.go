package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// Sizes of the tree that is made when the user gives none.
const (
	packageDirs     = 26
	packagesPerDir  = 120
	bytesPerPackage = 2000
)

func (s *show) makeTree(context.Context) error {
	if s.Tree != "" {
		s.say("Copying %s …", s.Tree)
		return os.CopyFS(s.tree, os.DirFS(s.Tree))
	}
	data := strings.Repeat("content of a package\n", bytesPerPackage/21)
	for i := range packageDirs {
		for j := range packagesPerDir {
			name := fmt.Sprintf("releases/43/Packages/%c/pkg-%c%03d.rpm", 'a'+i, 'a'+i, j)
			if err := s.write(name, data); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"releases/43/repodata/repomd.xml", "releases/43/repodata/primary.xml", "source/43/big.tar", "README"} {
		if err := s.write(name, "first version of "+name+"\n"); err != nil {
			return err
		}
	}
	s.say("A tree of %d files lies in %s.", packageDirs*packagesPerDir+4, s.tree)
	return nil
}

// write writes a file of the master's tree as a compose should: under another name, then renamed.
func (s *show) write(name, data string) error {
	path := filepath.Join(s.tree, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(data), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// startMaster starts rsync --daemon and the hub.
func (s *show) startMaster(ctx context.Context) (err error) {
	rsyncd, err := freePort()
	if err != nil {
		return err
	}
	if s.hub, err = freePort(); err != nil {
		return err
	}
	s.rsync = "rsync://" + rsyncd
	dir := filepath.Join(s.dir, "master")
	if err := s.startRsyncd(filepath.Join(dir, "rsyncd.conf"), rsyncd); err != nil {
		return err
	}
	_, join, err := enrol.InitMaster(enrol.Master{
		Dir: filepath.Join(dir, "etc"), State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "sock"), Name: "master",
		Listen: s.hub, Address: s.hub, Modules: []enrol.Module{{Name: module, Path: s.tree, Upstream: s.rsync + "/" + module}},
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		if err := s.enrolMirror(name, join); err != nil {
			return err
		}
	}
	hub, err := s.procs.start("hub", s.Program, "hub", "-c", s.masterConfig())
	if err != nil {
		return err
	}
	s.say("Master: rsync --daemon on %s, mirrorbus hub on %s.", rsyncd, s.hub)
	return poll(ctx, 30*time.Second, "hub ready", func() (bool, error) {
		st, err := s.status(ctx)
		return err == nil && st.Running && len(st.Modules) == 1 && st.Modules[0].Entries > 0, hub.ended()
	})
}

func (s *show) startRsyncd(conf, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("use chroot = no\nsocket options = TCP_NODELAY\nreverse lookup = no\n[%s]\n\tpath = %s\n\tread only = yes\n", module, s.tree)
	if os.Geteuid() == 0 {
		text = "uid = root\ngid = root\n" + text
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	_, err = s.procs.start("rsyncd", "rsync", "--daemon", "--no-detach", "--address=127.0.0.1", "--port="+port, "--config="+conf, "--log-file=/dev/stderr")
	return err
}

// enrolMirror makes a mirror's configuration and tells the master its key. gamma mirrors a subset.
func (s *show) enrolMirror(name string, join enrol.Join) error {
	m := &mirror{name: name, dir: filepath.Join(s.dir, name)}
	m.tree = filepath.Join(m.dir, "tree")
	if err := os.MkdirAll(m.tree, 0o755); err != nil {
		return err
	}
	path, key, err := enrol.InitMirror(enrol.Mirror{
		Dir: filepath.Join(m.dir, "etc"), State: filepath.Join(m.dir, "state"), Socket: filepath.Join(m.dir, "sock"), Name: name,
		Join: join, Modules: []enrol.Module{{Name: module, Path: m.tree}},
	})
	if err != nil {
		return err
	}
	if name == "gamma" {
		m.excluded = "source"
		if err := addLine(path, "[transport.hub]", `filter = ["- /source/"]`); err != nil {
			return err
		}
	}
	if s.Tree != "" { // the user's own links are as good as they are at home
		if err := addLine(path, "[transport.hub]", "unsafe_links = true"); err != nil {
			return err
		}
	}
	s.mirrors = append(s.mirrors, m)
	return enrol.AddMirror(filepath.Join(s.dir, "master", "etc", "allowed_signers"), name, key)
}

// addLine puts a line before another one of a file.
func addLine(path, before, line string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := strings.Replace(string(data), before, line+"\n\n"+before, 1)
	if text == string(data) {
		return fmt.Errorf("%s has no line %s", path, before)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func (s *show) startMirrors(context.Context) (err error) {
	for _, m := range s.mirrors {
		if m.agent, err = s.procs.start("agent "+m.name, s.Program, "agent", "-c", m.config()); err != nil {
			return err
		}
	}
	s.say("Mirrors: alpha and beta take everything, gamma leaves out /source/.")
	return nil
}

// firstSync waits until every mirror has what was there before anything was announced.
func (s *show) firstSync(ctx context.Context) error {
	start := time.Now()
	err := poll(ctx, 60*time.Second, "first sync", func() (bool, error) {
		for _, m := range s.mirrors {
			if err := m.agent.ended(); err != nil {
				return false, err
			}
		}
		return s.allCurrent(ctx)
	})
	s.say("First sync of all three: %.1f s.\n", time.Since(start).Seconds())
	return err
}

// allCurrent asks the hub whether every mirror has everything.
func (s *show) allCurrent(ctx context.Context) (bool, error) {
	st, err := s.status(ctx)
	if err != nil || len(st.Modules) != 1 || len(st.Modules[0].Mirrors) != len(s.mirrors) {
		return false, err
	}
	for _, m := range st.Modules[0].Mirrors {
		if m.State != trigger.Current {
			return false, nil
		}
	}
	return true, nil
}

func (s *show) status(ctx context.Context) (st trigger.Status, err error) {
	return st, s.command(ctx, &st, "status", "-c", s.masterConfig(), "--json")
}

// command runs mirrorbus and reads the JSON it prints. Its error carries what it said.
func (s *show) command(ctx context.Context, out any, args ...string) error {
	cmd := exec.CommandContext(ctx, s.Program, args...)
	var said strings.Builder
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("mirrorbus %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}
