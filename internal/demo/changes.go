package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/trigger"
)

// A row is one announcement in the timeline.
type row struct {
	what     string
	serial   uint64
	progress trigger.Progress
}

// publish announces names and waits until every mirror has them.
func (s *show) publish(ctx context.Context, what string, args ...string) error {
	serial, err := s.announce(ctx, args...)
	if err != nil {
		return err
	}
	return s.await(ctx, what, serial)
}

func (s *show) announce(ctx context.Context, args ...string) (uint64, error) {
	var done trigger.Published
	err := s.command(ctx, &done, append([]string{"publish", "-c", s.masterConfig(), "--json", module}, args...)...)
	s.say("$ mirrorbus publish %s %s", module, shorten(args))
	return uint64(done.Serial), err
}

// await waits for a serial on all mirrors and keeps how it got there.
func (s *show) await(ctx context.Context, what string, serial uint64) error {
	cmd := exec.CommandContext(ctx, s.Program, "wait", "-c", s.masterConfig(), "--json", "--timeout", "60s", module, fmt.Sprint(serial))
	cmd.Stderr = s.Out
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("wait for serial %d (%s): %w", serial, what, err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	r := row{what: what, serial: serial}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r.progress); err != nil {
		return err
	}
	s.rows = append(s.rows, r)
	return nil
}

func shorten(args []string) string {
	line := strings.Join(args, " ")
	if len(line) > 100 {
		line = line[:100] + fmt.Sprintf(" … (%d arguments)", len(args))
	}
	return line
}

// aFolder is a folder of the tree, for new files.
func (s *show) aFolder() (string, error) {
	if s.Tree == "" {
		return "releases/43/Packages/m", nil
	}
	var folder string
	err := filepath.WalkDir(s.tree, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() != ".mirrorbus" && path != s.tree {
			folder, err = filepath.Rel(s.tree, path)
			if err == nil {
				return filepath.SkipAll
			}
		}
		if d != nil && d.IsDir() && d.Name() == ".mirrorbus" {
			return filepath.SkipDir
		}
		return err
	})
	if err == nil && folder == "" {
		folder = "."
	}
	return folder, err
}

func (s *show) publishContent(ctx context.Context) error {
	folder, err := s.aFolder()
	if err != nil {
		return err
	}
	var names []string
	for i := range 100 {
		name := filepath.Join(folder, fmt.Sprintf("update-%03d.rpm", i))
		if err := s.write(name, strings.Repeat(fmt.Sprintf("update %d\n", i), 200)); err != nil {
			return err
		}
		names = append(names, name)
	}
	index := "releases/43/repodata/repomd.xml"
	if err := s.write(index, "second version\n"); err != nil {
		return err
	}
	return s.publish(ctx, "100 new files and an index", append(names, index)...)
}

func (s *show) publishDeletion(ctx context.Context) error {
	folder, err := s.aFolder()
	if err != nil {
		return err
	}
	args := []string{"--"}
	for i := range 10 {
		name := filepath.Join(folder, fmt.Sprintf("update-%03d.rpm", i))
		if err := os.Remove(filepath.Join(s.tree, name)); err != nil {
			return err
		}
		args = append(args, "-"+name)
	}
	return s.publish(ctx, "10 deletions", args...)
}

// publishTypeChange makes a directory with files in it a file, and a file a symbolic link.
func (s *show) publishTypeChange(ctx context.Context) error {
	if err := s.write("latest/notes", "a directory today\n"); err != nil {
		return err
	}
	if err := s.write("current", "a file today\n"); err != nil {
		return err
	}
	if err := s.publish(ctx, "a directory and a file", "latest", "current"); err != nil {
		return err
	}
	for _, name := range []string{"latest", "current"} {
		if err := os.RemoveAll(filepath.Join(s.tree, name)); err != nil {
			return err
		}
	}
	if err := s.write("latest", "a file now\n"); err != nil {
		return err
	}
	if err := os.Symlink("latest", filepath.Join(s.tree, "current")); err != nil {
		return err
	}
	return s.publish(ctx, "now a file and a link", "latest", "current")
}

// publishFlip distributes a release that nobody may read yet, then shows it.
func (s *show) publishFlip(ctx context.Context) error {
	for i := range 200 {
		if err := s.write(fmt.Sprintf("releases/44/pkg-%03d.rpm", i), fmt.Sprintf("not to be seen before the day %d\n", i)); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(s.tree, "releases/44"), 0o750); err != nil {
		return err
	}
	if err := s.publish(ctx, "a hidden release, 200 files", "releases/44"); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(s.tree, "releases/44"), 0o755); err != nil {
		return err
	}
	return s.publish(ctx, "the flip that shows it", "--flip", "releases/44")
}

// killAndGoOn kills beta's agent with SIGKILL in the middle of a sync, announces more meanwhile, and starts it again.
func (s *show) killAndGoOn(ctx context.Context) error {
	beta := s.mirrors[1]
	var names []string
	for i := range 30 {
		name := fmt.Sprintf("releases/43/images/disk-%02d.img", i)
		if err := s.write(name, strings.Repeat("0123456789abcdef", 1<<16)); err != nil {
			return err
		}
		names = append(names, name)
	}
	serial, err := s.announce(ctx, names...)
	if err != nil {
		return err
	}
	err = poll(ctx, 20*time.Second, "beta at work", func() (bool, error) {
		some, err := filepath.Glob(filepath.Join(beta.tree, "releases/43/images/*.img"))
		return len(some) > 0, err
	})
	if err != nil {
		return err
	}
	if err := beta.agent.kill(); err != nil {
		return err
	}
	s.say("# SIGKILL to beta's agent in the middle of its rsync")
	if err := s.write("README", "written while beta was dead\n"); err != nil {
		return err
	}
	last, err := s.announce(ctx, "README")
	if err != nil {
		return err
	}
	if beta.agent, err = s.procs.start("agent beta, again", s.Program, "agent", "-c", beta.config()); err != nil {
		return err
	}
	s.say("# beta's agent started again")
	if err := s.await(ctx, "30 MiB, beta killed half way", serial); err != nil {
		return err
	}
	return s.await(ctx, "one file, meanwhile", last)
}
