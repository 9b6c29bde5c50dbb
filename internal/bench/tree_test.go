package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/trigger"
)

const (
	filesPerDir  = 100
	bytesPerFile = 1024 // of disk, on the average: most files are empty
)

// name is the path of a file of a tree.
func name(i int) string {
	d := i / filesPerDir
	return fmt.Sprintf("pool/%03d/%02d/package-%02d.rpm", d/100, d%100, i%filesPerDir)
}

// makeTree makes a tree of so many files, 100 in each directory. One in ten has content.
func makeTree(ctx context.Context, root string, files int) error {
	const workers = 4
	g, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		g.Go(func() error {
			for d := w; d*filesPerDir < files && ctx.Err() == nil; d += workers {
				if err := makeDir(root, d*filesPerDir, min((d+1)*filesPerDir, files)); err != nil {
					return err
				}
			}
			return context.Cause(ctx)
		})
	}
	return g.Wait()
}

func makeDir(root string, from, to int) error {
	if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name(from))), 0o755); err != nil {
		return err
	}
	for i := from; i < to; i++ {
		var data []byte
		if i%10 == 0 {
			data = fmt.Appendf(nil, "content of package %d\n", i)
		}
		if err := os.WriteFile(filepath.Join(root, name(i)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// some are n paths of a tree of so many files, sorted: the first of each of up to 100 directories that lie evenly in the tree. So a change of
// n paths has the same shape whatever the size of the tree.
func some(n, files int) []string {
	dirs := min(100, n, max(files/filesPerDir, 1))
	per, step := n/dirs, max(files/filesPerDir/dirs, 1)
	var names []string
	for d := range dirs {
		for i := range min(per, filesPerDir) {
			names = append(names, name(d*step*filesPerDir+i))
		}
	}
	slices.Sort(names)
	return names
}

// rewrite gives the files new content, each by renaming. Each time is two seconds after the one before: rsync by hand takes a file of the same size
// and second for the same, and would bring nothing.
func (s *site) rewrite(names []string) error {
	s.second = s.second.Add(2 * time.Second)
	for _, n := range names {
		path := s.at(n)
		err := os.WriteFile(path+".new", fmt.Appendf(nil, "%s at %d\n", n, s.second.UnixNano()), 0o644)
		if err = errors.Join(err, os.Chtimes(path+".new", s.second, s.second), os.Rename(path+".new", path)); err != nil {
			return err
		}
	}
	return nil
}

func written(names []string) []trigger.Name {
	all := make([]trigger.Name, len(names))
	for i, n := range names {
		all[i] = trigger.Name{Path: n}
	}
	return all
}

// same waits until the path in the mirror has the mode and time that it has on the master, and returns when.
func (s *site) same(ctx context.Context, m *mirror, path string) (time.Time, error) {
	want, err := os.Lstat(s.at(path))
	if err != nil {
		return time.Time{}, err
	}
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		got, err := os.Lstat(filepath.Join(m.tree, path))
		if err == nil && got.Mode() == want.Mode() && (want.IsDir() || got.ModTime().Equal(want.ModTime())) {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s is not on the mirror: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
