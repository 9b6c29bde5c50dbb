package deploy

import (
	"fmt"
	"os/exec"
	"os/user"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// Each configuration on the page about push by ssh is one, and its hook is the one that a scenario runs.
func TestSSHPage(t *testing.T) {
	text := read(t, "ssh/README.md")
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) != 4 {
		t.Fatalf("%d blocks", len(blocks))
	}
	mirror := decode(t, read(t, "sample/mirror.toml")+blocks[0][1]+blocks[2][1], newMirror())
	if got := fmt.Sprint(mirror[".module.1.push"]); got != "[debian ]" {
		t.Errorf("push is %s", got)
	}
	master := decode(t, read(t, "sample/master.toml")+blocks[1][1]+blocks[3][1], newMaster())
	if got := master[".transport.ssh.mirror.1.push"]; got != "staged" {
		t.Errorf("push of the second mirror is %v", got)
	}
	hook := regexp.MustCompile("(?s)```sh\n#!/bin/sh\n(exec setsid .*?)```").FindStringSubmatch(text)
	if hook == nil || !strings.Contains(read(t, "../cmd/mirrorbus/testdata/script/debian-hops.txtar"), hook[1]) {
		t.Errorf("script debian-hops runs another hook than %q", hook)
	}
}

// sshd runs one program for the user that the snippet is about, and grants it nothing else; others it leaves alone.
func TestSSHDSnippet(t *testing.T) {
	text := read(t, "ssh/sshd.conf")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(s *testenv.SSHD, options ...string) (string, error) {
		ssh := slices.Concat(s.Shell(), options)
		out, err := exec.Command(ssh[0], ssh[1:]...).CombinedOutput()
		return string(out), err
	}
	other := testenv.StartSSHD(t, "", strings.Split(text, "\n")...)
	if out, err := ask(other, "127.0.0.1", "echo as asked"); err != nil || out != "as asked\n" {
		t.Errorf("another user: %q, %v", out, err)
	}
	ours := strings.NewReplacer("Match User mirrorbus", "Match User "+me.Username, "/usr/bin/mirrorbus receive", "echo forced").Replace(text)
	s := testenv.StartSSHD(t, "", strings.Split(ours, "\n")...)
	if out, err := ask(s, "127.0.0.1", "id"); err != nil || out != "forced\n" {
		t.Errorf("a command: %q, %v", out, err)
	}
	if out, err := ask(s, "-tt", "127.0.0.1"); !strings.Contains(out, "PTY allocation request failed") {
		t.Errorf("a terminal: %q, %v", out, err)
	}
	if out, err := ask(s, "-W", fmt.Sprint("127.0.0.1:", other.Port), "127.0.0.1"); err == nil || strings.Contains(out, "SSH-2.0-") {
		t.Errorf("a forwarding: %q, %v", out, err)
	}
}
