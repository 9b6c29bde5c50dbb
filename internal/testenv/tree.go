package testenv

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Node is one thing in a tree, made with Dir, File, Symlink or HardLink.
type Node struct {
	Path    string
	Mode    fs.FileMode // type and permission bits
	Content string      // of a file
	Target  string      // of a symlink as written; of a hard link the path of the other name in the tree
	Time    time.Time   // modification time; zero means when it was made
	hard    bool
}

// Dir is a directory with the given permission bits.
func Dir(path string, perm fs.FileMode) Node { return Node{Path: path, Mode: fs.ModeDir | perm} }

// File is a file with mode 0644.
func File(path, content string) Node { return Node{Path: path, Mode: 0o644, Content: content} }

// Noise is content without two parts that are alike, the same at each call: rsync has to send all of it.
func Noise(bytes int) string {
	b := make([]byte, bytes)
	rand.NewChaCha8([32]byte{}).Read(b) //nolint:errcheck // it never fails
	return string(b)
}

// Symlink is a symbolic link.
func Symlink(path, target string) Node {
	return Node{Path: path, Mode: fs.ModeSymlink, Target: target}
}

// HardLink is another name of the file other.
func HardLink(path, other string) Node { return Node{Path: path, Target: other, hard: true} }

// Perm returns the node with other permission bits.
func (n Node) Perm(perm fs.FileMode) Node { n.Mode = n.Mode.Type() | perm; return n }

// At returns the node with a modification time.
func (n Node) At(t time.Time) Node { n.Time = t; return n }

// WriteTree makes the nodes below dir, with missing parents, over what is there. Modes and times of directories are set last.
func WriteTree(t testing.TB, dir string, nodes ...Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.write(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range slices.Backward(nodes) {
		if err := n.finish(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func (n Node) write(dir string) error {
	path := filepath.Join(dir, n.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if n.Mode.IsDir() {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	switch {
	case n.hard:
		return os.Link(filepath.Join(dir, n.Target), path)
	case n.Mode&fs.ModeSymlink != 0:
		return os.Symlink(n.Target, path)
	}
	return os.WriteFile(path, []byte(n.Content), 0o600)
}

func (n Node) finish(dir string) error {
	path := filepath.Join(dir, n.Path)
	if n.hard || n.Mode&fs.ModeSymlink != 0 {
		return nil
	}
	if err := os.Chmod(path, n.Mode); err != nil {
		return err
	}
	if n.Time.IsZero() {
		return nil
	}
	return os.Chtimes(path, n.Time, n.Time)
}

// Diff compares the trees a and b: names, types, permission bits, sizes, modification times in nanoseconds, content, link targets and which
// names are hard links of each other. It returns one line per difference, sorted. The paths ignore and what is below them do not count, nor do
// the times and modes of the two roots. Owners are not compared.
func Diff(t testing.TB, a, b string, ignore ...string) []string {
	t.Helper()
	left, right := scan(t, a, ignore), scan(t, b, ignore)
	var out []string
	for path, l := range left {
		r, ok := right[path]
		if !ok {
			out = append(out, fmt.Sprintf("%q: only in %s", path, a))
			continue
		}
		for i, what := range describe {
			if l[i] != r[i] {
				out = append(out, fmt.Sprintf("%q: %s %s, not %s", path, what, l[i], r[i]))
				break
			}
		}
	}
	for path := range right {
		if _, ok := left[path]; !ok {
			out = append(out, fmt.Sprintf("%q: only in %s", path, b))
		}
	}
	slices.Sort(out)
	return out
}

// A facts is what Diff compares of one path, in the order of describe.
type facts [6]string

var describe = facts{"mode", "size", "target", "hard link of", "content", "time"}

func scan(t testing.TB, root string, ignore []string) map[string]facts {
	t.Helper()
	found, firstName := map[string]facts{}, map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel := strings.TrimPrefix(path, root+"/")
		if slices.Contains(ignore, rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f, err := look(path, info)
		if st := info.Sys().(*syscall.Stat_t); err == nil && info.Mode().IsRegular() && st.Nlink > 1 {
			if _, seen := firstName[st.Ino]; !seen {
				firstName[st.Ino] = rel
			}
			f[3] = firstName[st.Ino]
		}
		found[rel] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func look(path string, info fs.FileInfo) (f facts, err error) {
	f[0] = info.Mode().String()
	f[5] = info.ModTime().UTC().Format(time.RFC3339Nano)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		f[2], err = os.Readlink(path)
	case info.Mode().IsRegular():
		f[1] = fmt.Sprint(info.Size())
		var content []byte
		content, err = os.ReadFile(path)
		f[4] = fmt.Sprintf("%q…", content[:min(len(content), 40)])
		if len(content) > 40 {
			f[4] += fmt.Sprintf(" (sum %x)", sha256.Sum256(content))
		}
	}
	return f, err
}
