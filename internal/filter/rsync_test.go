package filter_test

import (
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// names are what the random trees are made of: each is near to another one, or odd.
var names = []string{
	"a", "b", "ab", "abc", "b.c", "A", "0", "a b", "-a", ".a", "a*b", "a?", "[ab]", "]", "a]", `a\b`, `\`, "**", "é", "\xff", "a\n", "+ a", "!", "x-y", "^",
}

// fragments are what the random patterns are made of.
var fragments = []string{
	"a", "b", "c", "ab", "A", "/", "/", "/", "*", "*", "*", "**", "***", "?", "[ab]", "[!a]", "[^b]", "[]a]", "[a-c]", "[[:alpha:]]", "[[:upper:][:digit:]]",
	`[\]]`, `\*`, `\?`, `\\`, `\`, "[[]", "[a-]", "[-a]", "[[:]", "[/]", "[!/]", "\xff", "é", " ", "_", ".", "-", "\n",
	"[![:space:]]", "[[:punct:]]", "[[:print:]]", "[[:cntrl:]]", "[+--]", `[\a-\c]`, "[b-a]", "[a-", "[[:no:]]", "**/", "/**", "*/", "/*",
}

var prefixes = []string{
	"- ", "- ", "- ", "- ", "+ ", "+ ", "+ ", "exclude ", "include ", "-_", "+_", "exclude_", "-,! ", "-! ", "+! ", "exclude,! ", "H ", "S ", "hide ", "show ",
	"P ", "R ", "protect ", "risk ", "-s ", "-r ", "+s ", "+r ", "-p ", "-,p! ", "P! ", "H,! ", "risk,p ",
}

func randomPattern(rnd *rand.Rand) string {
	switch rnd.Intn(8) {
	case 0:
		return []string{"*", "*/", "**", "/*", "/*/", "/*/*", "a/***", "/a/**", "/**/a", "**/a", "a/**/b", "/a/b/***", "/", "//", "a//", "***"}[rnd.Intn(16)]
	case 1: // a name of the tree, literally
		return strings.Repeat("/", rnd.Intn(2)) + names[rnd.Intn(len(names))] + strings.Repeat("/", rnd.Intn(2))
	}
	var b strings.Builder
	for range 1 + rnd.Intn(5) {
		b.WriteString(fragments[rnd.Intn(len(fragments))])
	}
	return b.String()
}

func randomRules(rnd *rand.Rand) []string {
	var rules []string
	for range 1 + rnd.Intn(6) {
		if rnd.Intn(40) == 0 {
			rules = append(rules, []string{"!", "clear"}[rnd.Intn(2)])
			continue
		}
		rule := prefixes[rnd.Intn(len(prefixes))] + randomPattern(rnd)
		if _, err := filter.Parse([]string{rule}); err == nil {
			rules = append(rules, rule)
		}
	}
	return rules
}

// A tree maps each path below a folder to whether it is a directory.
type tree map[string]bool

func randomTree(rnd *rand.Rand) tree {
	t := tree{}
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for range 3 + rnd.Intn(6) {
			if len(t) >= 150 {
				return
			}
			path := filepath.Join(dir, names[rnd.Intn(len(names))])
			if _, taken := t[path]; taken {
				continue
			}
			t[path] = depth < 4 && rnd.Intn(5) < 2
			if t[path] {
				fill(path, depth+1)
			}
		}
	}
	fill("", 0)
	return t
}

func (t tree) write(tb testing.TB, dir string, dirs, files bool) {
	tb.Helper()
	for path, isDir := range t {
		path = filepath.Join(dir, path)
		parent := path
		if !isDir {
			parent = filepath.Dir(path)
		}
		if dirs || files && !isDir {
			must(tb, os.MkdirAll(parent, 0o755))
		}
		if !isDir && files {
			must(tb, os.WriteFile(path, nil, 0o644))
		}
	}
}

func readTree(tb testing.TB, dir string) tree {
	tb.Helper()
	t := tree{}
	must(tb, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			t[path[len(dir)+1:]] = d.IsDir()
		}
		return err
	}))
	return t
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func rsync(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("rsync", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

var escaped = regexp.MustCompile(`\\#[0-7]{3}`)

// parseNames reads the names that rsync -n prints: odd bytes as \#OOO, directories with a slash.
func parseNames(t *testing.T, out string) tree {
	t.Helper()
	names := tree{}
	for line := range strings.Lines(out) {
		name := escaped.ReplaceAllStringFunc(strings.TrimSuffix(line, "\n"), func(e string) string {
			c, err := strconv.ParseUint(e[2:], 8, 8)
			must(t, err)
			return string([]byte{byte(c)})
		})
		if path, isDir := strings.CutSuffix(name, "/"); path != "." {
			names[path] = isDir
		}
	}
	return names
}

// TestAgainstRsync asks the real rsync what it would copy of random trees under random rules and compares that with what Included says, and what Below
// says with what Included says.
func TestAgainstRsync(t *testing.T) {
	testenv.Need(t, "rsync")
	const trees, sets = 10, 40
	for n := range trees {
		t.Run(fmt.Sprint("tree", n), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewSource(int64(n)))
			src, dst := t.TempDir(), t.TempDir()
			all := randomTree(rnd)
			all.write(t, src, true, true)
			for range sets {
				text := randomRules(rnd)
				rules, err := filter.Parse(text)
				must(t, err)
				want := tree{}
				for path, isDir := range all {
					if rules.Included(path, isDir) {
						want[path] = isDir
					}
				}
				checkBelow(t, rules, all)
				out := rsync(t, append(rsyncArgs(text), "-n", "--out-format=%n", src+"/", dst)...)
				if diff := cmp.Diff(parseNames(t, out), want); diff != "" {
					t.Fatalf("rules %q: rsync (-) and Included (+) differ:\n%s", text, diff)
				}
				checkArgs(t, rules, text, want)
			}
		})
	}
}

// TestProtectedAgainstRsync deletes random trees under random rules with the real rsync and compares what is left with what Protected says.
func TestProtectedAgainstRsync(t *testing.T) {
	testenv.Need(t, "rsync")
	hiding := [][]string{ // what random rules seldom do: protect something inside a directory that goes
		{"H /*", "P a*/"}, {"H /*", "P [ab]*/", "R /**"}, {"H /*", "-p *a*"}, {"H /*", "-rp *a*/", "P b*"}, {"H /*/", "P *b*", "-p a*"}, {"- /a*", "H /*", "P *b*/"},
	}
	for n := range 40 {
		rnd := rand.New(rand.NewSource(int64(1000 + n)))
		src, dst := t.TempDir(), t.TempDir()
		all := randomTree(rnd)
		all.write(t, src, true, false)
		all.write(t, dst, true, true)
		text := randomRules(rnd)
		if n < 2*len(hiding) {
			text = hiding[n%len(hiding)]
		}
		rules, err := filter.Parse(text)
		must(t, err)
		rsync(t, append([]string{"-r", "--delete"}, append(rules.Args(), src+"/", dst)...)...)
		left := readTree(t, dst)
		for path, isDir := range all {
			if _, is := left[path]; !isDir && is != rules.Protected(path, false) {
				t.Errorf("rules %q: %q left by rsync: %v, Protected: %v", rules, path, is, !is)
			}
		}
	}
}

func rsyncArgs(rules []string) []string {
	args := []string{"-r"}
	for _, r := range rules {
		args = append(args, "--filter="+r)
	}
	return args
}

// checkArgs checks that what Args and String give means the same as the rules as they were written.
func checkArgs(t *testing.T, rules *filter.Rules, text []string, want tree) {
	t.Helper()
	var again []string
	for _, a := range rules.Args() {
		again = append(again, strings.TrimPrefix(a, "--filter="))
	}
	second, err := filter.Parse(again)
	must(t, err)
	for path, isDir := range want {
		if !second.Included(path, isDir) {
			t.Errorf("rules %q, as arguments %q: %q is no longer included", text, again, path)
		}
	}
	if got := strings.Join(again, "\n"); second.String() != got || rules.String() != got {
		t.Errorf("String gives %q and then %q, want %q", rules, second, got)
	}
}

// checkBelow checks what Below promises on the names that exist.
func checkBelow(t *testing.T, rules *filter.Rules, all tree) {
	t.Helper()
	for dir, isDir := range all {
		if !isDir {
			continue
		}
		coverage := rules.Below(dir)
		for path, isDir := range all {
			if coverage == filter.Mixed || !strings.HasPrefix(path, dir+"/") {
				continue
			}
			if got := rules.Included(path, isDir); got != (coverage == filter.All) {
				t.Errorf("rules %q: Below(%q) is %v, but Included(%q) is %v", rules, dir, coverage, path, got)
			}
		}
	}
}
