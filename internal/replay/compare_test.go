package replay_test

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/export"
)

// differences is what a full rsync with checksums would change on a mirror, one line each. It looks at what an agent promises: names, types,
// content, link targets, permissions without setuid and setgid, times, hard links.
//
// A mirror with a subset hears nothing of names outside it, so the times of the directories they are in may be older. A second-tier mirror finds
// them as they are while its upstream works, which removes things before it sets times: what an announcement removes, it may remove at that moment,
// and take that time over. Nor is the time of the root looked at, which .mirrorbus/ changes.
func (w *world) differences(ctx context.Context, m *mirror) ([]string, error) {
	lines, err := w.wouldChange(ctx, m, "-aH")
	return slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, timeOfDirectory) && (line == timeOfDirectory+"./" || len(m.filter) > 0 || m.second)
	}), err
}

// timeOfDirectory begins a line of a directory that differs in its time and in nothing else.
const timeOfDirectory = ".d..t...... "

// wouldChange is what rsync with these options would change on a mirror.
func (w *world) wouldChange(ctx context.Context, m *mirror, options string) ([]string, error) {
	argv := []string{"rsync", "-nc", options, "--no-owner", "--no-group", "--no-devices", "--no-specials", "--chmod=ug-s", "--modify-window=-1",
		"--delete", "--delete-excluded", "--out-format=%i %n%L", "-8"}
	if !m.allLinks {
		argv = append(argv, "--safe-links")
	}
	out, err := w.run(ctx, "", append(append(argv, w.filters(m)...), w.rsyncd.URL(module)+"/", m.tree+"/")...)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Split(strings.TrimSpace(out), "\n"), func(line string) bool {
		what, _, _ := strings.Cut(line, " ")
		return what == "" || strings.HasPrefix(line, "ignoring unsafe symlink") || strings.HasPrefix(line, "skipping non-regular")
	}), nil
}

// history is what was announced of a path and of what is above and below it.
func (w *world) history(p string) string {
	p = strings.Trim(p, "/")
	var b strings.Builder
	for _, a := range w.said {
		for _, n := range a.names {
			bare := strings.TrimPrefix(strings.TrimPrefix(strings.TrimLeft(n, "+=-"), "r:"), "./")
			if p == bare || strings.HasPrefix(p, bare+"/") || path.Dir(bare) == p {
				fmt.Fprintf(&b, "    %d (%s): %q\n", a.serial, a.kind, n)
			}
		}
	}
	if w.source != nil { // what was done is one thing, what was announced another
		text, err := w.journalled(p)
		fmt.Fprint(&b, text)
		if err != nil {
			fmt.Fprintf(&b, "    the journal cannot be read: %v\n", err)
		}
	}
	return b.String()
}

// compare reports where mirrors differ from the master, and what was announced of it.
func (w *world) compare(ctx context.Context) {
	w.t.Helper()
	for _, m := range w.mirrors {
		lines, err := w.differences(ctx, m)
		if err != nil {
			w.t.Errorf("compare %s: %v", m.name, err)
		}
		w.differs(m, lines)
	}
}

// differs reports lines of rsync.
func (w *world) differs(m *mirror, lines []string) {
	w.t.Helper()
	for i, line := range lines {
		if i == 15 {
			w.t.Errorf("%s: %d more differences", m.name, len(lines)-i)
			break
		}
		name, _, _ := strings.Cut(line[min(len(line), len(timeOfDirectory)):], " -> ")
		name, _, _ = strings.Cut(name, " => ")
		w.t.Errorf("%s differs: %q\n%s", m.name, line, w.history(unescape(name)))
	}
}

// unescape reads a name as rsync writes it: \#012 is a line end.
func unescape(name string) string {
	return regexp.MustCompile(`\\#[0-3][0-7]{2}`).ReplaceAllStringFunc(name, func(s string) string {
		n, err := strconv.ParseUint(s[2:], 8, 8)
		if err != nil {
			return s
		}
		return string([]byte{byte(n)})
	})
}

// journalled is what the journal holds of a path, by its name or by that of a directory above.
func (w *world) journalled(p string) (string, error) {
	r, err := export.OpenReader(filepath.Join(w.tree, event.ExportDir))
	if err != nil {
		return "", err
	}
	defer r.Close() //nolint:errcheck // only read
	line, err := r.Head()
	if err != nil {
		return "", err
	}
	head, err := event.Read(line)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for entry, err := range r.Entries(head.Head.Epoch, 1) {
		if err != nil {
			return b.String(), err
		}
		said, err := event.Read(entry.Line)
		if err != nil {
			return b.String(), err
		}
		if said.Announcement.Set.IsZero() {
			fmt.Fprintf(&b, "    serial %d at %s: see the manifest\n", entry.Serial, said.Announcement.At.Format("15:04:05"))
			continue
		}
		set, err := envelope.PathSet(entry.Set, said.Announcement.Set)
		if err != nil {
			return b.String(), err
		}
		for _, rec := range set {
			wide := rec.Spans() && event.Under(rec.Path, p) || rec.From != "" && (rec.From == p || event.Under(rec.From, p))
			if rec.Path == p || wide {
				fmt.Fprintf(&b, "    serial %d at %s: %c %q %q %o %d %s\n", entry.Serial, said.Announcement.At.Format("15:04:05"), rec.Op, rec.Path, rec.From, rec.Mode, rec.Size, rec.MTime)
			}
		}
	}
	return b.String(), nil
}
