// Package trace writes the trace file of a mirror as Debian's mirrors have it: project/trace/NAME in the tree, which says when the tree was last brought up
// to date, and from where. The programs that watch Debian's mirrors read it.
//
// The first line is a time as date(1) writes it in the C locale; then come fields, one a line. Those that mirrorbus cannot state truly are left out:
// it does not look which architectures a tree holds.
package trace

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"time"
)

// Dir is where trace files are, in the tree.
const Dir = "project/trace"

// A Trace is what is said. Its times are of this host's clock.
type Trace struct {
	Started, Finished time.Time
	Upstream          string // as configured; only its host is told
	Trigger           string // what the mirror was woken by: "mirrorbus", or "ssh" for a push that did not say what has changed
	Received          int64  // bytes
}

// Valid tells whether a trace file may have this name: that of a host, and none that Debian's tools use for something else.
func Valid(name string) bool {
	return len(name) <= 253 && name != "" && name != "master" && name[0] != '.' && name[0] != '_' && name[0] != '-' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// Rules are filter rules that keep the file from being deleted or replaced by what the upstream has.
func Rules(name string) []string {
	file := "/" + path.Join(Dir, name)
	return []string{"- " + file, "- " + temporary("/"+Dir, name), "P /project/", "P /" + Dir + "/"}
}

func temporary(dir, name string) string { return path.Join(dir, "."+name+".new") }

// Write writes the file below the tree dir. Readers see it whole, as it was before or as it is now; nothing is written through a link that leads out of the
// tree.
func Write(dir, name string, t Trace) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	defer func() {
		if err = errors.Join(err, root.Close()); err != nil {
			err = fmt.Errorf("trace: %w", err)
		}
	}()
	if err := root.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	temp := temporary(Dir, name)
	if err := root.WriteFile(temp, []byte(t.text(serial(root))), 0o644); err != nil {
		return err
	}
	return root.Rename(temp, path.Join(Dir, name))
}

// maxMaster is how much of the master's trace file is read.
const maxMaster = 64 << 10

// serial is the archive's serial as the master's trace file has it, "" if there is no such file.
func serial(root *os.Root) string {
	f, err := root.Open(path.Join(Dir, "master"))
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read from
	for lines := bufio.NewScanner(io.LimitReader(f, maxMaster)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "Archive serial: "); ok {
			return strings.Map(printable, value)
		}
	}
	return "unknown"
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}

func (t Trace) text(serial string) string {
	var s strings.Builder
	say := func(field string, value any) { fmt.Fprintf(&s, "%s: %v\n", field, value) }
	fmt.Fprintln(&s, t.Finished.UTC().Format("Mon Jan _2 15:04:05 UTC 2006"))
	say("Date", t.Finished.UTC().Format(time.RFC1123Z))
	say("Date-Started", t.Started.UTC().Format(time.RFC1123Z))
	if serial != "" {
		say("Archive serial", serial)
	}
	say("Creator", "mirrorbus "+version())
	if host, err := os.Hostname(); err == nil {
		say("Running on host", host)
	}
	say("Trigger", t.Trigger)
	say("Upstream-mirror", host(t.Upstream))
	took := int64(t.Finished.Sub(t.Started) / time.Second)
	if t.Received > 0 {
		say("Total bytes received in rsync", t.Received)
	}
	say("Total time spent in rsync", max(took, 0))
	if took > 0 {
		say("Average rate", fmt.Sprintf("%d B/s", t.Received/took))
	}
	return s.String()
}

// host is that of an upstream, without user or path.
func host(upstream string) string {
	name := upstream
	if u, err := url.Parse(upstream); err == nil && u.Scheme == "rsync" {
		name = u.Hostname()
	} else {
		name, _, _ = strings.Cut(name, ":/")
		name = name[strings.LastIndexByte(name, '@')+1:]
	}
	return cmp.Or(strings.Map(printable, name), "unknown")
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
