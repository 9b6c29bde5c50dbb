package demo

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger"
)

// timeFullSync changes one file and brings a copy up to date as a cron job would: with one rsync of everything. It shows what a null walk costs
// beside the scoped syncs above.
func (s *show) timeFullSync(ctx context.Context) error {
	copied := filepath.Join(s.dir, "cron", "tree")
	full := func() (time.Duration, error) {
		start := time.Now()
		out, err := exec.CommandContext(ctx, "rsync", "-aH", "--delete", "--exclude=/.mirrorbus/", s.rsync+"/"+module+"/", copied+"/").CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("full rsync: %w: %s", err, out)
		}
		return time.Since(start), nil
	}
	if err := os.MkdirAll(copied, 0o755); err != nil {
		return err
	}
	if _, err := full(); err != nil {
		return err
	}
	if err := s.write("README", "one file changed\n"); err != nil {
		return err
	}
	took, err := full()
	if err != nil {
		return err
	}
	if err := s.publish(ctx, "one file", "README"); err != nil {
		return err
	}
	s.rows = append(s.rows, row{what: fmt.Sprintf("the same by one full rsync: %d ms", took.Milliseconds())})
	return nil
}

// compare checks every mirror's tree against the master's.
func (s *show) compare(context.Context) error {
	for _, m := range s.mirrors {
		different, n, err := differences(s.tree, m.tree, m.excluded)
		if err != nil {
			return err
		}
		if len(different) > 0 {
			return fmt.Errorf("%s differs from the master in %d places: %s", m.name, len(different), strings.Join(different[:min(len(different), 10)], "; "))
		}
		s.say("%s: %d names compared, identical", m.name, n)
	}
	return nil
}

// differences lists where two trees differ in names, types, modes, times, link targets or content, and how many names were compared. excluded, a
// folder at the top, must be absent from b.
func differences(a, b, excluded string) ([]string, int, error) {
	left, err := read(a, excluded)
	if err != nil {
		return nil, 0, err
	}
	right, err := read(b, "")
	if err != nil {
		return nil, 0, err
	}
	var different []string
	for name, is := range left {
		if right[name] != is {
			different = append(different, fmt.Sprintf("%s is %q, should be %q", name, right[name], is))
		}
	}
	for name := range right {
		if _, ok := left[name]; !ok {
			different = append(different, name+" should not be there")
		}
	}
	return different, len(left), nil
}

// read describes every name of a tree but those below .mirrorbus and excluded. The root's own times are left out.
func read(root, excluded string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		if name == ".mirrorbus" || excluded != "" && name == excluded {
			return filepath.SkipDir
		}
		all[name], err = describe(path, d)
		return err
	})
	return all, err
}

func describe(path string, d fs.DirEntry) (string, error) {
	fi, err := d.Info()
	if err != nil {
		return "", err
	}
	s := fmt.Sprintf("%v %v", fi.Mode(), fi.ModTime().Unix())
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return "link to " + target, err
	case fi.Mode().IsRegular():
		sum, err := hash(path)
		return s + " " + sum, err
	}
	return s, nil
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// timeline prints when each announcement was received and applied, in milliseconds after it was announced, by the master's clock.
func (s *show) timeline() {
	fmt.Fprintln(s.Out, "\nMilliseconds from announced to received / applied:")
	t := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "serial\twhat changed")
	for _, m := range s.mirrors {
		fmt.Fprint(t, "\t", m.name)
	}
	fmt.Fprintln(t)
	for _, r := range s.rows {
		if r.serial == 0 {
			fmt.Fprintf(t, "\t%s\n", r.what)
			continue
		}
		fmt.Fprintf(t, "%d\t%s", r.serial, r.what)
		for _, m := range s.mirrors {
			fmt.Fprint(t, "\t", times(r.progress, m.name))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		s.say("timeline: %v", err)
	}
}

func times(p trigger.Progress, name string) string {
	for _, m := range p.Mirrors {
		if m.Mirror != name {
			continue
		}
		received := "–"
		if m.Received > 0 {
			received = fmt.Sprint(m.Received.Milliseconds())
		}
		return fmt.Sprintf("%s / %d", received, m.Applied.Milliseconds())
	}
	return "–"
}
