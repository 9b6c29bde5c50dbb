package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// needFtpsync skips the script where the package is not: it is Debian's own.
func needFtpsync(ts *testscript.TestScript, _ bool, _ []string) {
	for _, name := range []string{"ftpsync", "runmirrors"} {
		if _, err := exec.LookPath(name); err != nil {
			testenv.Unable(sceneOf(ts).t, "the package ftpsync is not installed: it is of Debian and its kin")
		}
	}
}

// plainMirror writes a/mirror.toml for a mirror of the rsync daemon's module debian, whose master knows nothing of mirrorbus: plain SETTING….
func plainMirror(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range []string{"a", "mirror/debian"} {
		ts.Check(os.MkdirAll(ts.MkAbs(dir), 0o755))
	}
	ts.Check(os.WriteFile(ts.MkAbs("a/trust"), nil, 0o644))
	ts.Check(ts.Exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ts.MkAbs("a/key")))
	text := fmt.Sprintf("name = \"alpha\"\nkey = \"key\"\ntrust = \"trust\"\nstate = \"state\"\nsocket = %q\n\n[[module]]\nname = \"debian\"\npath = %q\nupstream = %q\npush = [\"debian\", \"\"]\nlast = [\"debian\"]\n%s\n",
		ts.Getenv("SOCKETS")+"/a", ts.MkAbs("mirror/debian"), ts.Getenv("RSYNC")+"/debian", strings.Join(args, "\n"))
	ts.Check(os.WriteFile(ts.MkAbs("a/mirror.toml"), []byte(text), 0o644))
}

// writeRunmirrors configures the packaged runmirrors to push the sshd of the script: runmirrors ARCHIVE TYPE [HOME].
func writeRunmirrors(ts *testscript.TestScript, _ bool, args []string) {
	home := ts.MkAbs(".")
	if len(args) > 2 {
		home = ts.MkAbs(args[2])
	}
	dir := filepath.Join(home, ".config/ftpsync")
	ts.Check(os.MkdirAll(dir, 0o755))
	_, port, _ := strings.Cut(ts.Getenv("SSHD"), ":")
	conf := fmt.Sprintf("BASEDIR=%q\nLOGNAME=nobody\nKEYFILE=%q\nSSH_OPTS=\"-F none -o StrictHostKeyChecking=yes -o UserKnownHostsFile=%s\"\nPUSHDELAY=20\nmailf() { :; }\n",
		home, ts.Getenv("SSHD_KEY"), ts.Getenv("SSHD_KNOWN"))
	ts.Check(os.WriteFile(filepath.Join(dir, "runmirrors-"+args[0]+".conf"), []byte(conf), 0o644))
	line := fmt.Sprintf("%s mirror1 127.0.0.1 %s -p %s\n", args[1], ts.Getenv("SSHD_USER"), port)
	ts.Check(os.WriteFile(filepath.Join(dir, "runmirrors-"+args[0]+".mirror"), []byte(line), 0o644))
}

// ftpsyncCommand configures the packaged ftpsync to keep copy/debian as the rsync daemon's module fedora is, and returns what sshd is to run.
func ftpsyncCommand(ts *testscript.TestScript) string {
	conf := ts.MkAbs(".config/ftpsync")
	for _, dir := range []string{conf, ts.MkAbs("copy/debian"), ts.MkAbs("log")} {
		ts.Check(os.MkdirAll(dir, 0o755))
	}
	text := fmt.Sprintf("MIRRORNAME=copy\nTO=%q\nRSYNC_SOURCE=%q\nRSYNC_HOST=127.0.0.1\nLOGDIR=%q\nEXCLUDE=--exclude=/.mirrorbus/\nHOOK1=%q\nHOOK4=%q\nmailf() { :; }\n",
		ts.MkAbs("copy/debian")+"/", ts.Getenv("RSYNC")+"/fedora/", ts.MkAbs("log"), ts.MkAbs("hook1"), ts.MkAbs("hook4"))
	ts.Check(os.WriteFile(filepath.Join(conf, "ftpsync-debian.conf"), []byte(text), 0o644))
	for name, hold := range map[string]string{"hook1": "hold", "hook4": "holdtail"} { // stand still before the first stage, and when all is done but the end
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte("#!/bin/sh\nwhile [ -e "+ts.MkAbs(hold)+" ]; do echo >"+ts.MkAbs("at-"+name)+"; sleep 0.1; done\n"), 0o755))
	}
	home := ts.MkAbs(".")
	return fmt.Sprintf("env HOME=%s BASEDIR=%[1]s LOGNAME=nobody PATH=%s ftpsync", home, os.Getenv("PATH"))
}
