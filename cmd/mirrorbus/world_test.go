package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// world enrols a mirror with a master, as enrol.txtar does by hand, and starts neither. Afterwards there are
//
//	tree            the master's module fedora, which a real rsync daemon serves
//	mirror/fedora   where the mirror alpha has it
//	m/master.toml   configuration of the master, whose hub is to listen on $HUB
//	a/mirror.toml   configuration of the mirror
//
// Each argument is a setting of the mirror's module: world 'max_delete = 3'.
func world(ts *testscript.TestScript, _ bool, args []string) {
	freePort(ts, false, []string{"HUB"})
	for _, dir := range []string{"tree", "mirror/fedora"} {
		ts.Check(os.MkdirAll(ts.MkAbs(dir), 0o755))
	}
	rsyncd(ts, false, []string{"fedora=tree"})
	hub, sockets := ts.Getenv("HUB"), ts.Getenv("SOCKETS")
	output := func(args ...string) string {
		ts.Check(ts.Exec("mirrorbus", args...))
		return ts.ReadFile("stdout")
	}
	output("init", "master", "--dir", "m", "--state", "m/state", "--socket", sockets+"/m", "--listen", hub, "--address", hub,
		"--rsync", ts.Getenv("RSYNC"), "--module", "fedora=tree")
	word := output("mirror", "join", "-c", "m/master.toml", hub)
	output("init", "mirror", "--dir", "a", "--state", "a/state", "--socket", sockets+"/a", "--name", "alpha", "--module", "fedora=mirror/fedora",
		"--join", strings.TrimSpace(word))
	output("mirror", "add", "-c", "m/master.toml", "alpha", strings.TrimSpace(ts.ReadFile("a/mirror_key.pub")))
	for _, line := range args {
		setting(ts, false, []string{"a/mirror.toml", "[[module]]", line})
	}
}

// setting puts a setting into a configuration: setting FILE [SECTION] 'key = value'. It takes the place of one with that key.
func setting(ts *testscript.TestScript, _ bool, args []string) {
	file, line, section := ts.MkAbs(args[0]), args[len(args)-1], ""
	if len(args) == 3 {
		section = args[1]
	}
	key, _, ok := strings.Cut(line, " = ")
	if !ok || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: setting FILE [SECTION] 'key = value'")
	}
	before, after := "", ts.ReadFile(args[0])
	if section != "" {
		if before, after, ok = strings.Cut(after, section+"\n"); !ok {
			ts.Fatalf("%s has no %s", args[0], section)
		}
		before += section + "\n"
	}
	var kept strings.Builder
	for l := range strings.Lines(after) {
		if name, _, _ := strings.Cut(l, "="); strings.TrimSpace(name) != key {
			kept.WriteString(l)
		}
	}
	ts.Check(os.WriteFile(file, []byte(before+line+"\n"+kept.String()), 0o644))
}

// upstream stops or starts the rsync daemon: upstream stop|start.
func upstream(ts *testscript.TestScript, _ bool, args []string) {
	d := sceneOf(ts).rsyncd
	if d == nil || len(args) != 1 {
		ts.Fatalf("usage: rsyncd …, then upstream stop|start")
	}
	switch args[0] {
	case "stop":
		d.Stop()
	case "start":
		d.Start()
	default:
		ts.Fatalf("upstream %s: stop or start", args[0])
	}
}

// tmpfs mounts a file system of its own on a folder, or mounts it again with other options: tmpfs FOLDER OPTIONS, for example size=4m or ro.
// It is unmounted at the end. Who may not mount skips the script.
func tmpfs(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: tmpfs FOLDER OPTIONS")
	}
	t := sceneOf(ts).t
	testenv.NeedRoot(t)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	var flags uintptr
	data := args[1]
	if data == "ro" || data == "rw" {
		flags, data = map[string]uintptr{"ro": unix.MS_REMOUNT | unix.MS_RDONLY, "rw": unix.MS_REMOUNT}[data], ""
	}
	mounted := fmt.Sprintf(" %s tmpfs ", dir)
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil && strings.Contains(string(mounts), mounted) {
		ts.Check(unix.Mount("tmpfs", dir, "tmpfs", flags|unix.MS_REMOUNT, data))
		return
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, data); err != nil {
		testenv.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	ts.Defer(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// runSQL changes a database behind its owner's back: sql FILE STATEMENT.
func runSQL(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: sql FILE STATEMENT")
	}
	db, err := sqlite.Open(context.Background(), ts.MkAbs(args[0]), sqlite.Options{Durability: sqlite.Full})
	ts.Check(err)
	_, err = db.Exec(args[1])
	ts.Check(errors.Join(err, db.Close()))
}

// ready waits until daemons answer on their control sockets: ready m a.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		waitFor(ts, "control socket "+name, func() error {
			c, err := net.Dial("unix", filepath.Join(ts.Getenv("SOCKETS"), name))
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
}
