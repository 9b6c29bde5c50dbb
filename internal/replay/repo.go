package replay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Repos is the folder of the repositories in a tree.
const Repos = "repos"

// A repo is a folder of packages with an index in two steps, as dnf has it: repodata/repomd.xml names a list, the list names the packages. Names of
// packages and lists are used once. A reader finds all that the index names, at any moment: content comes before it and goes after it.
type repo struct {
	dir      string
	list     string   // name in repodata
	packages []string // names in pool, oldest first

	retired [][]string // what the index names no more and is still there: the paths that went with each issue, oldest first
}

const (
	repoCount = 4  // repositories of a day
	repoKeeps = 12 // packages in a repository
)

// A Named is one line of an index: a file that it names, relative to the repository.
type Named struct {
	Path string
	Size int64
	Sum  string // SHA-256 in hex
}

// ParseIndex reads an index.
func ParseIndex(text []byte) ([]Named, error) {
	var all []Named
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if len(f) != 3 || line[len(line)-1] != '\n' {
			return nil, fmt.Errorf("index line %.100q: must be a size, a digest and a path", line)
		}
		size, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("index line %.100q: %w", line, err)
		}
		all = append(all, Named{Path: f[2], Size: size, Sum: f[1]})
	}
	return all, nil
}

// issue releases packages in a repository, rewrites its index and removes what that names no more. It may not be announced late: mirrors wait for
// the announcement of an index that they see has changed.
func (d *Day) issue(b *Batch) error {
	r, err := d.someRepo(b)
	if err != nil {
		return err
	}
	b.Prompt = true
	for range 1 + d.rng.IntN(3) {
		name := fmt.Sprintf("pkg-%d.rpm", d.made)
		d.made++
		if err := d.write(b, path.Join(r.dir, "pool", name), d.content()); err != nil {
			return err
		}
		r.packages = append(r.packages, name)
	}
	old := r.packages[:max(0, len(r.packages)-repoKeeps)]
	r.packages = r.packages[len(old):]
	oldList := r.list
	if err := d.writeIndex(b, r); err != nil {
		return err
	}
	err = d.retire(b, r, oldList, old)
	switch d.rng.IntN(6) {
	case 0:
		b.touch(path.Join(r.dir, "pool"), whole)
	case 1:
		b.touch(r.dir, whole)
	}
	return err
}

// retire removes what the index names no more, after as many issues as the day keeps it.
func (d *Day) retire(b *Batch, r *repo, list string, packages []string) error {
	var gone []string
	if list != "" {
		gone = append(gone, path.Join(r.dir, "repodata", list))
	}
	for _, name := range packages {
		gone = append(gone, path.Join(r.dir, "pool", name))
	}
	r.retired = append(r.retired, gone)
	var err error
	for ; len(r.retired) > d.Keeps; r.retired = r.retired[1:] {
		for _, p := range r.retired[0] {
			err = errors.Join(err, d.drop(b, p))
		}
	}
	return err
}

func (d *Day) someRepo(b *Batch) (*repo, error) {
	i := d.rng.IntN(repoCount)
	if i < len(d.repos) {
		return d.repos[i], nil
	}
	r := &repo{dir: path.Join(Repos, strconv.Itoa(len(d.repos)))}
	for _, dir := range []string{Repos, r.dir, path.Join(r.dir, "pool"), path.Join(r.dir, "repodata")} {
		if err := os.Mkdir(d.abs(dir), 0o755); err == nil {
			b.touch(dir, whole)
		} else if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	d.repos = append(d.repos, r)
	return r, nil
}

// writeIndex writes the list and then the index that names it.
func (d *Day) writeIndex(b *Batch, r *repo) error {
	list, err := d.naming(r.dir, "pool", r.packages)
	if err != nil {
		return err
	}
	d.made++
	r.list = fmt.Sprintf("%d-primary", d.made)
	if err := d.write(b, path.Join(r.dir, "repodata", r.list), list); err != nil {
		return err
	}
	top, err := d.naming(r.dir, "repodata", []string{r.list})
	if err != nil {
		return err
	}
	return d.write(b, path.Join(r.dir, "repodata/repomd.xml"), top)
}

func (d *Day) naming(dir, sub string, names []string) ([]byte, error) {
	var text bytes.Buffer
	for _, n := range names {
		content, err := os.ReadFile(d.abs(path.Join(dir, sub, n)))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "%d %x %s/%s\n", len(content), sha256.Sum256(content), sub, n)
	}
	return text.Bytes(), nil
}

// write puts a file in place.
func (d *Day) write(b *Batch, p string, text []byte) error {
	b.touch(p, content)
	temp := path.Join(path.Dir(p), ".new")
	return errors.Join(os.WriteFile(d.abs(temp), text, 0o644), os.Rename(d.abs(temp), d.abs(p)))
}

func (d *Day) drop(b *Batch, p string) error {
	b.touch(p, content)
	return os.Remove(d.abs(p))
}
