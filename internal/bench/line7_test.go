package bench_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// pushes is line 7: the same changes, told to the mirror as Debian's mirrors are told: ssh with a key whose command is the packaged ftpsync, which
// fetches everything in two stages. By hand means that ssh(1) is started, as runmirrors starts it.
func (b *bench) pushes() error {
	ftpsync, err := exec.LookPath("ftpsync")
	if err != nil {
		say("  left out: the package ftpsync is not installed, and not of this system")
		return nil
	}
	for _, files := range []int{b.small, b.big} {
		s, err := b.siteOf(files)
		if err != nil {
			return err
		}
		push, err := s.pusher(ftpsync)
		if err != nil {
			return err
		}
		for _, n := range []int{1, 100} {
			if err := s.pushed(n, files, push); err != nil {
				return err
			}
		}
	}
	return nil
}

// pusher starts sshd with ftpsync as its forced command, which keeps the copy.
func (s *site) pusher(ftpsync string) (func() error, error) {
	home := filepath.Join(s.dir, "ftpsync")
	conf := filepath.Join(home, ".config", "ftpsync")
	text := fmt.Sprintf("MIRRORNAME=bench\nTO=%q\nRSYNC_SOURCE=%q\nRSYNC_HOST=127.0.0.1\nRSYNC_PATH=%q\nLOGDIR=%q\nEXCLUDE=--exclude=/.mirrorbus/\nMAILTO=\n",
		s.copy+"/", s.rsyncd.URL(module), module, filepath.Join(home, "log"))
	err := errors.Join(os.MkdirAll(conf, 0o755), os.MkdirAll(filepath.Join(home, "log"), 0o755), os.WriteFile(filepath.Join(conf, "ftpsync.conf"), []byte(text), 0o644))
	if err != nil {
		return nil, err
	}
	sshd := testenv.StartSSHD(s.b.T, fmt.Sprintf("env HOME=%s BASEDIR=%[1]s LOGNAME=bench PATH=%s %s", home, os.Getenv("PATH"), ftpsync))
	shell := append(sshd.Shell(), "-n", "127.0.0.1", "sync:all")
	return func() error {
		if _, err := s.b.output("", shell...); err != nil {
			return errors.Join(err, tail(filepath.Join(home, "log", "ftpsync.log")))
		}
		return nil
	}, nil
}

func tail(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: …%s", path, text[max(len(text)-2000, 0):])
}

func (s *site) pushed(n, files int, push func() error) error {
	names := some(n, files)
	var took taken
	var theirs []time.Duration
	for range s.b.fullRounds(files) {
		err := s.byBus(names, &took)
		if err == nil {
			err = s.timed(names, &theirs, push)
		}
		if err == nil {
			err = s.arrived(names[len(names)-1])
		}
		if err != nil {
			return err
		}
	}
	s.b.add(row{line: "7", what: fmt.Sprintf("%d of %d files, announced to applied", n, files), ours: median(took.applied), against: "ssh to ftpsync, told to done",
		theirs: median(theirs), rounds: len(theirs)})
	return nil
}

// arrived makes sure that the copy has the path as it is: a push that failed is not a fast one.
func (s *site) arrived(path string) error {
	want, err := os.ReadFile(s.at(path))
	if err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(s.copy, path))
	if err == nil && string(got) != string(want) {
		err = fmt.Errorf("ftpsync has not brought %s: %q", path, strings.TrimSpace(string(got)))
	}
	return err
}
