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

// startSSHD starts an sshd that runs a command of the program, or the packaged ftpsync, whatever it is asked for: sshd COMMAND…. $SSHD is its host:port, $SSHD_USER and $SSHD_KEY whom it
// lets in, $SSHD_KNOWN the file with its host key, and $SSH the client with all of that.
func startSSHD(ts *testscript.TestScript, _ bool, args []string) {
	program, err := lookUp("mirrorbus", ts.Getenv("PATH"))
	ts.Check(err)
	for i, a := range args {
		if strings.HasSuffix(a, ".toml") {
			args[i] = ts.MkAbs(a)
		}
	}
	command := program + " " + strings.Join(args, " ")
	if args[0] == "ftpsync" {
		command = ftpsyncCommand(ts)
	}
	s := testenv.StartSSHD(sceneOf(ts).t, command)
	for name, value := range map[string]string{
		"SSHD": fmt.Sprint("127.0.0.1:", s.Port), "SSHD_USER": s.User, "SSHD_KEY": s.KeyFile, "SSHD_KNOWN": s.KnownHosts, "SSH": strings.Join(s.Shell(), " ") + " -T 127.0.0.1",
	} {
		ts.Setenv(name, value)
	}
}

// restrictSSHD writes the line of authorized_keys as deploy/ssh has it: restrict COMMAND….
func restrictSSHD(ts *testscript.TestScript, _ bool, args []string) {
	program, err := lookUp("mirrorbus", ts.Getenv("PATH"))
	ts.Check(err)
	for i, a := range args {
		if strings.HasSuffix(a, ".toml") {
			args[i] = ts.MkAbs(a)
		}
	}
	file := filepath.Join(filepath.Dir(ts.Getenv("SSHD_KEY")), "authorized_keys")
	line, err := os.ReadFile(file)
	ts.Check(err)
	ts.Check(os.WriteFile(file, fmt.Appendf(nil, "restrict,command=\"%s %s\" %s", program, strings.Join(args, " "), line), 0o600))
}

// lookUp finds a program in a path that is not this process's own.
func lookUp(program, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return found, nil
		}
	}
	return "", exec.ErrNotFound
}
