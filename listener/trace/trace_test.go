package trace_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/trace"
)

var at = time.Date(2026, 11, 5, 7, 8, 9, 0, time.UTC)

func write(t *testing.T, dir string, x trace.Trace) []string {
	t.Helper()
	if err := trace.Write(dir, "mirror1.example.org", x); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, trace.Dir, "mirror1.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// The times are as date(1) writes them.
func TestTimes(t *testing.T) {
	lines := write(t, t.TempDir(), trace.Trace{Started: at, Finished: at})
	for i, want := range []struct{ prefix, option string }{{"", "+%c"}, {"Date: ", "-R"}} {
		cmd := exec.Command("date", "-u", "-d", at.Format(time.RFC3339), want.option)
		if want.option == "+%c" {
			cmd = exec.Command("date", "-u", "-d", at.Format(time.RFC3339))
		}
		cmd.Env = []string{"LC_ALL=POSIX", "PATH=" + os.Getenv("PATH")}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := lines[i]; got != want.prefix+strings.TrimSpace(string(out)) {
			t.Errorf("%q, want %q", got, want.prefix+strings.TrimSpace(string(out)))
		}
	}
}

func TestFields(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, trace.Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, trace.Dir, "master"), []byte("Thu Nov  5 07:00:00 UTC 2026\nArchive serial: 2026110501\x1b[2J\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	x := trace.Trace{Started: at, Finished: at.Add(10 * time.Second), Upstream: "rsync://user@up.example.org:873/debian/", Trigger: "ssh", Received: 12345}
	got := strings.Join(write(t, dir, x), "\n")
	for _, want := range []string{
		"\nArchive serial: 2026110501[2J\n", "\nCreator: mirrorbus ", "\nTrigger: ssh\n", "\nUpstream-mirror: up.example.org\n", "\nTotal bytes received in rsync: 12345\n",
		"\nTotal time spent in rsync: 10\n", "\nAverage rate: 1234 B/s\n", "\nDate-Started: Thu, 05 Nov 2026 07:08:09 +0000\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	x.Upstream = "user@up.example.org:/srv/debian"
	if got := strings.Join(write(t, dir, x), "\n"); !strings.Contains(got, "Upstream-mirror: up.example.org\n") || strings.Contains(got, "user") {
		t.Errorf("the upstream is told as\n%s", got)
	}
	if left, err := os.ReadDir(filepath.Join(dir, trace.Dir)); err != nil || len(left) != 2 {
		t.Errorf("beside the trace files there is %v, %v", left, err)
	}
}

// A link in the tree does not lead the file out of it.
func TestNeverThroughALinkOutOfTheTree(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "project")); err != nil {
		t.Fatal(err)
	}
	if err := trace.Write(dir, "mirror1", trace.Trace{}); err == nil {
		t.Error("written")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside there is %v, %v", left, err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"", "master", "_traces", ".x", "-x", "a/b", "..", "a b", "a\n", strings.Repeat("a", 254)} {
		if trace.Valid(name) {
			t.Errorf("%q is a name", name)
		}
	}
	if !trace.Valid("ftp.de.example.org") {
		t.Error("the name of a host is none")
	}
}
