package rsync

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestContentBringsExactlyTheNamedPaths(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("a/b/f", "content"), testenv.File("a/b/other", "x"), testenv.Symlink("a/l", "b/f"), testenv.Dir("a/empty", 0o700))
	res := w.run(Job{Mode: Content, Paths: []string{"a/b/f", "a/l", "a/empty"}})
	if res.Files != 1 || res.Bytes != 7 || res.Deleted != 0 || res.Runs != 1 {
		t.Errorf("result %+v", res)
	}
	if got, want := paths(res.Items), []string{"a", "a/b", "a/b/f", "a/empty", "a/l"}; !slices.Equal(got, want) {
		t.Errorf("items %q, want %q", got, want)
	}
	w.same("a/b/other")
	w.clean()
	if again := w.run(Job{Mode: Content, Paths: []string{"a/b/f", "a/l", "a/empty"}}); again.Changes != 0 {
		t.Errorf("second run changed %v", again.Items)
	}
}

func TestContentNamesOfAnyBytes(t *testing.T) {
	w := newWorld(t)
	names := oddNames()
	for _, n := range names {
		w.upstream(testenv.File(n, "content of "+n))
	}
	res := w.run(Job{Mode: Content, Paths: names})
	w.same()
	if res.Files != int64(len(names)) {
		t.Errorf("%d files, want %d", res.Files, len(names))
	}
	for _, n := range names {
		if !slices.ContainsFunc(res.Items, func(it Item) bool { return it.Path == n && it.Op == Received }) {
			t.Errorf("no item for %q", n)
		}
	}
}

// oddNames are names that rsync, a shell or a parser of rsync's output could get wrong.
func oddNames() []string {
	return []string{
		"new\nline", "-dash", "--delete", "inv\xff\xfealid", `a\[b`, "#x", ";x", "tab\there", "cr\rx", " blank ", "*?[]", "+ x", "- x", `back\slash`, `end\`,
		`x\#012y`, "d\ni/r", `d\[ir/f`, "ünï", `q"uote`, "pipe|x", `"`, "é|#\\", "{a,b}", "$(x)", "`x`", "~", "a:b",
	}
}

func TestContentTypeChanges(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("dir-to-file", "f"), testenv.File("file-to-dir/f", "f"), testenv.File("link-to-dir/f", "f"), testenv.Symlink("file-to-link", "x"), testenv.File("link-to-file", "f"))
	w.mirror(testenv.File("dir-to-file/old", "o"), testenv.File("file-to-dir", "o"), testenv.File("real/keep", "k"), testenv.File("file-to-link", "o"), testenv.Symlink("link-to-file", "real/keep"))
	job := Job{Mode: Content, Paths: []string{"dir-to-file", "file-to-dir/f", "file-to-link", "link-to-file"}}
	e := w.fails(job, MaxDelete)
	w.onePath(e, "dir-to-file", InTheWay, true)
	if e.Retry() != Human {
		t.Errorf("retry %s", e.Retry())
	}
	job.MaxDelete = 1
	w.run(job)
	w.same("real", "link-to-dir")
	if w.read("real/keep") != "k" {
		t.Error("wrote through a link")
	}
}

func TestContentKeepsEmbargoedDirectoriesClosed(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.Dir("embargo", 0o750), testenv.Dir("embargo/sub", 0o700), testenv.File("embargo/sub/f", "secret"))
	w.run(Job{Mode: Content, Paths: []string{"embargo/sub/f"}})
	if got := w.perm("embargo").Perm(); got != 0o750 {
		t.Errorf("embargo is %v", got)
	}
	if got := w.perm("embargo/sub").Perm(); got != 0o700 {
		t.Errorf("embargo/sub is %v", got)
	}
}

func TestContentHardLinks(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("a/one", "same"), testenv.HardLink("b/two", "a/one"), testenv.HardLink("c/three", "a/one"), testenv.HardLink(`d/back\[slash`, "a/one"))
	w.mirror(testenv.File("b/two", "same"))
	w.run(Job{Mode: Content, Paths: []string{"a/one", "b/two", "c/three", `d/back\[slash`}}) // rsync takes the last for a pattern
	w.same()
}

func TestContentSeesARewriteWithinOneSecondOfEqualSize(t *testing.T) {
	w := newWorld(t)
	at := time.Unix(1_700_000_000, 100)
	w.upstream(testenv.File("f", "old").At(at))
	w.run(Job{Mode: Content, Paths: []string{"f"}})
	w.upstream(testenv.File("f", "new").At(at.Add(500)))
	w.run(Job{Mode: Content, Paths: []string{"f"}})
	w.same()
}

func TestAMirrorWithoutNanosecondsPaysOnceAndNotByContent(t *testing.T) {
	w := newWorld(t)
	at := time.Unix(1_700_000_000, 0)
	content := strings.Repeat("0123456789abcdef", 1<<16)
	w.upstream(testenv.File("big", content).At(at.Add(500)))
	w.mirror(testenv.File("big", content).At(at))
	if res := w.run(Job{Mode: Content, Paths: []string{"big"}}); res.Bytes != 0 || res.Received > 100_000 {
		t.Errorf("%+v", res)
	}
	w.same()
	if res := w.run(Job{Mode: Content, Paths: []string{"big"}}); res.Changes != 0 {
		t.Errorf("again: %+v", res)
	}
}

func TestContentTakesAwaySetIDBits(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("f", "x").Perm(0o755 | os.ModeSetuid))
	w.run(Job{Mode: Content, Paths: []string{"f"}})
	if got := w.perm("f"); got != 0o755 {
		t.Errorf("mode %v", got)
	}
	w.cfg.Chmod = "none"
	w.run(Job{Mode: Content, Paths: []string{"f"}})
	w.same()
}

func TestUnsafeLinksAreLeftOutUnlessWanted(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.Symlink("out", "../../etc/passwd"), testenv.Symlink("in", "x"))
	for _, mode := range []Mode{Content, Recursive} {
		w.upstream(testenv.Symlink("d/up", "../../out"), testenv.Symlink("d/ok", "../in"))
		res := w.run(Job{Mode: mode, Paths: map[Mode][]string{Content: {"in", "out", "d/up", "d/ok"}, Recursive: {"d"}}[mode], MaxDelete: 9})
		want := map[Mode][]string{Content: {"d/up", "out"}, Recursive: {"d/up"}}[mode]
		if slices.Sort(res.Unsafe); !slices.Equal(res.Unsafe, want) {
			t.Errorf("%s: left out %q, want %q", mode, res.Unsafe, want)
		}
		if !w.exists("in") || w.exists("out") || w.exists("d/up") || !w.exists("d/ok") || len(res.Notices) > 0 {
			t.Errorf("%s: in %t, out %t, d/up %t, d/ok %t, notices %q", mode, w.exists("in"), w.exists("out"), w.exists("d/up"), w.exists("d/ok"), res.Notices)
		}
	}
	w.cfg.UnsafeLinks = true
	if res := w.run(Job{Mode: Content, Paths: []string{"in", "out", "d/up"}}); len(res.Unsafe) > 0 {
		t.Errorf("left out %q", res.Unsafe)
	}
	w.same()
}

func TestIndexFilesAppearTogether(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("repodata/repomd.xml", "new"), testenv.File("repodata/primary.xml", "new"))
	w.mirror(testenv.File("repodata/repomd.xml", "old one"))
	w.run(Job{Mode: Index, Paths: []string{"repodata/repomd.xml", "repodata/primary.xml"}})
	w.same()
	w.clean()
}

func TestLevelIsOneLevelWithDeletions(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("d/new", "n"), testenv.File("d/sub/deep", "x"), testenv.File("e/f", "x"), testenv.File("type", "file"))
	w.mirror(testenv.File("d/extra", "x"), testenv.File("d/extradir/x", "x"), testenv.File("d/sub/kept", "k"), testenv.File("other", "x"), testenv.File("e/extra", "x"))
	res := w.run(Job{Mode: Level, Paths: []string{"d"}, MaxDelete: 10})
	if res.Deleted != 3 || !w.exists("d/new") || w.exists("d/sub/deep") || !w.exists("d/sub/kept") || w.exists("d/extradir") || !w.exists("other") || !w.exists("e/extra") {
		t.Errorf("%+v", res)
	}
	e := w.fails(Job{Mode: Level, Paths: []string{"e"}}, MaxDelete)
	if !w.exists("e/extra") || !w.exists("e/f") {
		t.Errorf("without leave to delete: extra %t, f %t: %v", w.exists("e/extra"), w.exists("e/f"), e)
	}
	w.run(Job{Mode: Level, Paths: []string{"e"}, MaxDelete: 5, Filters: []string{"- extra"}})
	if !w.exists("e/extra") {
		t.Error("a filtered name was deleted")
	}
}

func TestKeepDeletesOnlyWhatIsInTheWay(t *testing.T) {
	for _, mode := range []Mode{Level, Recursive} {
		w := newWorld(t)
		w.upstream(testenv.File("d/type", "a file now"), testenv.File("d/new", "n"))
		w.mirror(testenv.File("d/type/below", "x"), testenv.File("d/extra", "x"))
		w.run(Job{Mode: mode, Paths: []string{"d"}, Keep: true, MaxDelete: 10})
		if !w.exists("d/extra") || !w.exists("d/new") || w.exists("d/type/below") || !w.exists("d/type") {
			t.Errorf("%s: extra %t, new %t, below %t, type %t", mode, w.exists("d/extra"), w.exists("d/new"), w.exists("d/type/below"), w.exists("d/type"))
		}
	}
}

func TestRecursiveStaysInItsDirectories(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("d/a/b/c", "x"), testenv.File("d/f", "x"), testenv.File(`odd\[/f`, "x"), testenv.File("other/f", "x"))
	w.mirror(testenv.File("d/a/extra", "x"), testenv.File("d/gone/f", "x"), testenv.File("keep", "x"))
	res := w.run(Job{Mode: Recursive, Paths: []string{"d", "d/a", `odd\[`}, MaxDelete: Unlimited})
	if res.Deleted != 3 || !w.exists("keep") {
		t.Errorf("%+v", res)
	}
	w.same("keep", "other")
}

func TestFullMakesTheWholeTreeTheSame(t *testing.T) {
	w := newWorld(t)
	past := time.Unix(1_600_000_000, 0) // a full run compares whole seconds
	w.upstream(testenv.Dir("d", 0o755).At(past), testenv.Dir("d/a", 0o750).At(past), testenv.File("d/a/f", "x").At(past), testenv.File("f", "x").At(past))
	w.mirror(testenv.File("extra/x", "x"), testenv.File("f", "old one"))
	res := w.run(Job{Mode: Full, MaxDelete: 10})
	if res.Deleted != 2 {
		t.Errorf("%+v", res)
	}
	w.same()
}

func TestFlipSetsModesOnly(t *testing.T) {
	w := newWorld(t)
	at := time.Unix(1_700_000_000, 0)
	w.upstream(testenv.Dir("d", 0o755).At(at), testenv.File("d/f", "new").Perm(0o644), testenv.File("d/only-up", "x"), testenv.Dir("d", 0o755).At(at))
	w.mirror(testenv.Dir("d", 0o700), testenv.File("d/f", "old").Perm(0o600).At(at))
	res := w.run(Job{Mode: Flip, Paths: []string{"d", "d/f", "d/only-up"}})
	if w.perm("d").Perm() != 0o755 || w.perm("d/f").Perm() != 0o644 || w.read("d/f") != "old" || w.exists("d/only-up") || res.Bytes != 0 {
		t.Errorf("d %v, d/f %v %q, only-up %t, %+v", w.perm("d"), w.perm("d/f"), w.read("d/f"), w.exists("d/only-up"), res)
	}
	if info, err := os.Stat(filepath.Join(w.dest, "d/f")); err != nil || !info.ModTime().Equal(at) {
		t.Error("a flip set the time on content it did not bring")
	}
}

func TestVerifyChangesNothingAndNamesTheDrift(t *testing.T) {
	w := newWorld(t)
	at := time.Unix(1_700_000_000, 0)
	w.upstream(testenv.File("same", "x").At(at), testenv.File("short", "longer").At(at), testenv.File("quiet", "abc").At(at), testenv.File("missing", "x"))
	w.mirror(testenv.File("same", "x").At(at), testenv.File("short", "x").At(at), testenv.File("quiet", "abd").At(at), testenv.File("gone", "x"))
	job := Job{Mode: Verify, Paths: []string{"same", "short", "quiet", "missing", "gone", "nowhere"}}
	if got, want := paths(w.run(job).Items), []string{"gone", "missing", "short"}; !slices.Equal(got, want) {
		t.Errorf("drift %q, want %q", got, want)
	}
	job.Checksum = true
	if got, want := paths(w.run(job).Items), []string{"gone", "missing", "quiet", "short"}; !slices.Equal(got, want) {
		t.Errorf("drift by content %q, want %q", got, want)
	}
	if w.read("short") != "x" || w.exists("missing") || !w.exists("gone") {
		t.Error("verify changed something")
	}
}

func TestFetchCopiesSmallFilesElsewhere(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File(".mirrorbus/head", "h"), testenv.File(".mirrorbus/sets/a", "a"), testenv.File(".mirrorbus/big", "too large for us"), testenv.Symlink(".mirrorbus/l", "head"))
	into := filepath.Join(t.TempDir(), "state")
	res := w.run(Job{Mode: Fetch, Paths: []string{".mirrorbus/head", ".mirrorbus/none", ".mirrorbus/sets", ".mirrorbus/big", ".mirrorbus/l"}, Into: into, MaxSize: 10})
	got, err := os.ReadFile(filepath.Join(into, ".mirrorbus/head"))
	if err != nil || string(got) != "h" || res.Files != 2 || !slices.Equal(res.TooLarge, []string{".mirrorbus/big"}) {
		t.Errorf("%q %v %+v", got, err, res)
	}
	for _, name := range []string{"big", "l", "none"} {
		if _, err := os.Lstat(filepath.Join(into, ".mirrorbus", name)); err == nil {
			t.Errorf("%s was fetched", name)
		}
	}
}

func TestTenThousandNames(t *testing.T) {
	w := newWorld(t)
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("d%02d/f%05d", i%50, i))
		w.upstream(testenv.File(names[i], "x"))
	}
	started := time.Now()
	res := w.run(Job{Mode: Content, Paths: names})
	if res.Files != 10_000 || res.Runs != 5 || res.Changes < 10_000 || len(res.Items) != MaxItems {
		t.Errorf("files %d, runs %d, changes %d, items %d", res.Files, res.Runs, res.Changes, len(res.Items))
	}
	t.Logf("10,000 names in %v", time.Since(started))
	w.same()
}
