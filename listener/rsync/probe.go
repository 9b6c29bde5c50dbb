package rsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Features are what an installed rsync can do, as tried, not as its version says: distributions change programs without changing versions.
type Features struct {
	Binary  string // absolute path
	Version string // as rsync prints it, such as "3.5.0"

	// DeleteMissingArgs: --delete-missing-args works. 3.4.3 and what distributions made of it end with status 2 instead; see deleteHere.
	DeleteMissingArgs bool

	// TrustSender: --trust-sender is known (3.2.5 and newer).
	TrustSender bool

	// Nanoseconds: times can be compared to the nanosecond (3.1.3 and newer).
	Nanoseconds bool

	// Resumes: a file that was cut off goes on from what is in a --partial-dir with an absolute path. Distributions' 3.2.7 with the fixes of
	// January 2025 calls the result wrong content, so that such files come from their beginning again.
	Resumes bool

	// Warnings are for the operator.
	Warnings []string
}

var versionLine = regexp.MustCompile(`^rsync +version v?(\d+)\.(\d+)\.(\d+)\S*`)

// Probe tries the rsync binary, "rsync" if empty, against a daemon of its own kind, without a network.
func Probe(ctx context.Context, binary string) (f Features, err error) {
	if binary == "" {
		binary = "rsync"
	}
	if f.Binary, err = lookPath(binary); err != nil {
		return f, err
	}
	if err := f.readVersion(ctx); err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp("", "mirrorbus-probe-")
	if err != nil {
		return f, fmt.Errorf("probe rsync: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a few empty files in the system's temporary folder
	if err := makeProbe(dir); err != nil {
		return f, fmt.Errorf("probe rsync: %w", err)
	}
	var copies error
	var tries sync.WaitGroup // side by side, since the agent waits for them when it starts
	tries.Go(func() { copies = f.try(ctx, dir, "existing\x00") })
	tries.Go(func() { f.TrustSender = f.try(ctx, dir, "existing\x00", "--trust-sender") == nil })
	tries.Go(func() {
		f.DeleteMissingArgs = f.try(ctx, dir, "existing\x00missing\x00", "--delete-missing-args") == nil && gone(filepath.Join(dir, "to", "missing"))
	})
	tries.Go(func() {
		f.Resumes = f.try(ctx, dir, "begun\x00", "--partial-dir="+filepath.Join(dir, "unfinished")) == nil && gone(filepath.Join(dir, "unfinished", "begun"))
	})
	tries.Wait()
	if copies != nil {
		return f, fmt.Errorf("probe rsync: %s cannot copy from its own daemon: %w", f.Binary, copies)
	}
	if !f.DeleteMissingArgs {
		f.Warnings = append(f.Warnings, "rsync "+f.Version+" has a broken --delete-missing-args; deletions take one more connection")
	}
	if !f.Resumes {
		f.Warnings = append(f.Warnings, "rsync "+f.Version+" cannot go on with a file that was cut off; it is sent again from its beginning")
	}
	return f, context.Cause(ctx)
}

// readVersion asks the version, and refuses one that lacks what every run needs.
func (f *Features) readVersion(ctx context.Context) error {
	var out, errs strings.Builder
	c := command{
		argv: []string{f.Binary, "--version"}, env: environment(), stall: 20 * time.Second,
		stdout: func(l string) error { out.WriteString(l + "\n"); return nil }, stderr: func(l string) { errs.WriteString(l + "\n") },
	}
	if code, err := c.run(ctx); err != nil || code != 0 {
		return errors.Join(fmt.Errorf("%s --version: exit status %d: %s", f.Binary, code, errs.String()), err)
	}
	m := versionLine.FindStringSubmatch(out.String())
	if m == nil {
		return fmt.Errorf("%s --version says %.80q: this is not rsync from rsync.samba.org, which mirrorbus needs", f.Binary, out.String())
	}
	var v [3]int
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1]) // digits; one too large to be a number stays the largest
	}
	f.Version = fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	number := v[0]*10000 + v[1]*100 + v[2]
	f.Nanoseconds = number >= 30103
	switch {
	case number < 30100:
		return fmt.Errorf("%s is rsync %s: 3.1.0 is the oldest that works, 3.5.0 or newer is recommended; update it", f.Binary, f.Version)
	case number < 30500:
		f.Warnings = append(f.Warnings, "rsync "+f.Version+" is older than 3.5.0, which closed holes that a bad upstream can use; update it unless your distribution has patched it")
	}
	return nil
}

// makeProbe makes a module, a destination and the configuration of a daemon.
func makeProbe(dir string) error {
	conf := "use chroot = no\n" + asRoot() + "[probe]\npath = " + filepath.Join(dir, "from") + "\n"
	half := []byte(strings.Repeat("what has come ", 1000))
	return errors.Join(
		os.Mkdir(filepath.Join(dir, "from"), 0o700), os.Mkdir(filepath.Join(dir, "to"), 0o700), os.Mkdir(filepath.Join(dir, "unfinished"), 0o700),
		os.WriteFile(filepath.Join(dir, "from", "existing"), nil, 0o600), os.WriteFile(filepath.Join(dir, "to", "missing"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "from", "begun"), append(half, "and the rest"...), 0o600), os.WriteFile(filepath.Join(dir, "unfinished", "begun"), half, 0o600),
		os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600),
	)
}

// asRoot keeps a daemon of root from becoming nobody, who cannot read the probe's folder. For others the lines would be an error.
func asRoot() string {
	if os.Geteuid() == 0 {
		return "uid = 0\ngid = 0\n"
	}
	return ""
}

// try copies the listed names from a daemon that rsync starts itself and talks to through a pair of sockets.
func (f *Features) try(ctx context.Context, dir, list string, args ...string) error {
	var errs strings.Builder
	daemon := shellQuote(f.Binary) + " --daemon --config=" + shellQuote(filepath.Join(dir, "conf"))
	c := command{
		argv: append(append([]string{f.Binary, "-lpt", "--from0", "--files-from=-"}, args...), "rsync://localhost/probe/", filepath.Join(dir, "to")+"/"),
		env:  environment("RSYNC_CONNECT_PROG=" + daemon), list: []byte(list), stall: 20 * time.Second,
		stdout: func(string) error { return nil }, stderr: func(l string) { errs.WriteString(l + " ") },
	}
	code, err := c.run(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d: %s", code, errs.String())
	}
	return err
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func gone(path string) bool {
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}
