package replay_test

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

// differences is what a full rsync with checksums would change on a mirror, one line each. It looks at what an agent promises: names, types,
// content, link targets, permissions without setuid and setgid, times, hard links.
//
// A mirror with a subset hears nothing of names outside it, so the times of the directories they are in may be older. A second-tier mirror finds
// them as they are while its upstream works, which removes things before it sets times: what an announcement removes, it may remove at that moment,
// and take that time over. Nor is the time of the root looked at, which .mirrorbus/ changes.
func (w *world) differences(ctx context.Context, m *mirror) ([]string, error) {
	argv := []string{"rsync", "-nc", "-aH", "--no-owner", "--no-group", "--no-devices", "--no-specials", "--chmod=ug-s", "--modify-window=-1",
		"--delete", "--delete-excluded", "--out-format=%i %n%L", "-8"}
	if !m.allLinks {
		argv = append(argv, "--safe-links")
	}
	out, err := w.run(ctx, "", append(append(argv, w.filters(m)...), w.rsyncd.URL(module)+"/", m.tree+"/")...)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return slices.DeleteFunc(lines, func(line string) bool {
		what, name, _ := strings.Cut(line, " ")
		timeOnly := strings.HasPrefix(what, ".d..t......")
		return what == "" || strings.HasPrefix(line, "ignoring unsafe symlink") || strings.HasPrefix(line, "skipping non-regular") ||
			timeOnly && (name == "./" || len(m.filter) > 0 || m.second)
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
		for i, line := range lines {
			if i == 15 {
				w.t.Errorf("%s: %d more differences", m.name, len(lines)-i)
				break
			}
			_, name, _ := strings.Cut(line, " ")
			name, _, _ = strings.Cut(name, " -> ")
			name, _, _ = strings.Cut(name, " => ")
			w.t.Errorf("%s differs: %q\n%s", m.name, line, w.history(name))
		}
	}
}
