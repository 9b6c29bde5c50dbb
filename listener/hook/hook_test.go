package hook_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener/hook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSucceedsWithEnvironmentInputAndLog(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	var log bytes.Buffer
	out := filepath.Join(t.TempDir(), "out")
	err := hook.Command{
		Argv: []string{"sh", "-c", `echo said; cat >"$OUT"; echo "secret=$SECRET_OF_THE_AGENT" >>"$OUT"`}, Env: []string{"OUT=" + out},
		Stdin: strings.NewReader("a\x00b\x00"), Log: slog.New(slog.NewTextHandler(&log, nil)),
	}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "a\x00b\x00secret=\n" {
		t.Errorf("%q %v", got, err)
	}
	if !strings.Contains(log.String(), "line=said") {
		t.Errorf("log: %s", &log)
	}
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		status int
		last   string
	}{
		"failed":    {"echo first; echo it broke >&2; exit 3", 3, "it broke"},
		"try again": {"exit 75", hook.TryAgain, ""},
		"killed":    {"kill -9 $$", -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := hook.Command{Argv: []string{"sh", "-c", test.script}}.Run(t.Context())
			var exit *hook.ExitError
			if !errors.As(err, &exit) || exit.Status != test.status || exit.Last != test.last {
				t.Errorf("%#v", err)
			}
		})
	}
	if err := (hook.Command{Argv: []string{"/does/not/exist"}}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing program: %v", err)
	}
	if err := (hook.Command{}).Run(t.Context()); err == nil {
		t.Error("an empty command ran")
	}
}

func TestInputThatIsNotReadIsNoFailure(t *testing.T) {
	err := hook.Command{Argv: []string{"true"}, Stdin: strings.NewReader(strings.Repeat("x", 1<<20))}.Run(t.Context())
	if err != nil {
		t.Error(err)
	}
}

// TestGroupDiesWithTheCommand starts a command whose child would outlive it.
func TestGroupDiesWithTheCommand(t *testing.T) {
	for name, end := range map[string]func(hook.Command) error{
		"in time": func(c hook.Command) error {
			c.Argv = []string{"sh", "-c", `sleep 1000 & echo $! >"$PIDFILE"`}
			return c.Run(t.Context())
		},
		"timeout": func(c hook.Command) error {
			c.Timeout = 300 * time.Millisecond
			if err := c.Run(t.Context()); !errors.Is(err, hook.ErrTimeout) {
				t.Errorf("%v", err)
			}
			return nil
		},
		"canceled": func(c hook.Command) error {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				testenv.WaitFor(t, 10*time.Second, func() error { _, err := os.Stat(strings.TrimPrefix(c.Env[0], "PIDFILE=")); return err })
				cancel()
			}()
			if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			err := end(hook.Command{Argv: []string{"sh", "-c", `sleep 1000 & echo $! >"$PIDFILE.new"; mv "$PIDFILE.new" "$PIDFILE"; wait`}, Env: []string{"PIDFILE=" + file}})
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			testenv.WaitFor(t, 10*time.Second, func() error {
				if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
					return errors.New("the child still runs")
				} else if err := syscall.Kill(pid, 0); err == nil && stat == nil {
					return errors.New("the child still runs")
				}
				return nil
			})
		})
	}
}
