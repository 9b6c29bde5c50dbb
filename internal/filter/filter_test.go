package filter_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/internal/indexes"
)

func parse(t testing.TB, rules ...string) *filter.Rules {
	t.Helper()
	r, err := filter.Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestIncluded(t *testing.T) {
	for _, c := range []struct {
		rules string // one a line
		in    string // paths separated by blanks; a directory ends in a slash
		out   string
	}{
		{"- *.o", "a.c x/a.c o", "a.o x/y/a.o x.o/ x.o/a"},
		{"- /foo", "x/foo foo2", "foo foo/ foo/x"},
		{"- foo/", "foo x/foo", "foo/ foo/x x/foo/y"},
		{"- foo/*/bar", "bar foo/bar foo/a/b/bar", "foo/a/bar x/foo/a/bar"},
		{"- /foo/**/bar", "foo/bar x/foo/a/bar", "foo/a/bar foo/a/b/bar"},
		{"+ */\n+ *.c\n- *", "x/ x/y/a.c", "a x/a.h"},
		{"+ foo/\n+ foo/bar.c\n- *", "foo/ foo/bar.c", "bar.c foo/x x/foo/"},
		{"+ /x86_64/***\n- *", "x86_64/ x86_64/a/b", "aarch64/ x86_64"},
		{"-! *.iso", "a.iso", "a b/ b/a.iso"},
		{"P a\nR b\n-r c\n+r d", "a b c d", ""},
		{"H a\nhide b\nexclude,s c", "x", "a b c x/a"},
		{"- a\n!\n- b", "a", "b"},
		{"- a\\b", `ab`, `a\b`},
		{"- a\\*", `a\x ab`, "a*"},
		{"- [[:digit:]]", "10 a", "1 x/2"},
		{"- **/a/b", "b x/b", "a/b x/a/b"},
		{"", "a a/b", ""},
	} {
		var lines []string
		if c.rules != "" {
			lines = strings.Split(c.rules, "\n")
		}
		r := parse(t, lines...)
		for want, paths := range map[bool]string{true: c.in, false: c.out} {
			for _, p := range strings.Fields(paths) {
				path, isDir := strings.CutSuffix(p, "/")
				if got := r.Included(path, isDir); got != want {
					t.Errorf("rules %q: Included(%q) is %v, want %v", c.rules, p, got, want)
				}
			}
		}
	}
}

func TestRootIsAlwaysIncluded(t *testing.T) {
	r := parse(t, "- *", "P *")
	for _, root := range []string{"", "."} {
		if !r.Included(root, true) || r.Protected(root, true) {
			t.Errorf("the root %q is excluded or protected", root)
		}
	}
}

func TestNilCarriesEverything(t *testing.T) {
	var r *filter.Rules
	if !r.Included("a/b", false) || r.Protected("a", false) || r.Below("a") != filter.All || r.Args() != nil || r.String() != "" {
		t.Error("nil rules do not carry everything")
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		rules, dir string
		want       filter.Coverage
	}{
		{"- /x", "x", filter.None},
		{"- /x", "x/y", filter.None},
		{"- /x", "y", filter.All},
		{"- /x", "", filter.Mixed},
		{"- x", "y", filter.Mixed},
		{"- *", "", filter.None},
		{"- /a/*", "a", filter.None},
		{"- /a/b/c", "a", filter.Mixed},
		{"- /a/b/c", "b", filter.All},
		{"- /a*/b", "ax", filter.Mixed},
		{"- /a*/b", "x", filter.All},
		{"- /a*/b", "ax/c", filter.All},
		{"- a/b/", "x", filter.Mixed},
		{"+ /a/***\n- *", "a", filter.All},
		{"+ /a/***\n- *", "a/b", filter.All},
		{"+ /a/***\n- *", "b", filter.None},
		{"+ /a/***\n- *", ".", filter.Mixed},
		{"+ */\n- *", "a", filter.Mixed},
		{"-! */", "a", filter.Mixed},
		{"-! /a/**", "a/b", filter.None}, // for a itself is not below a/
		{"+ /a/\n-! /a/**", "a", filter.All},
		{"P *", "a", filter.All},
		{"- **", "", filter.None},
	} {
		if got := parse(t, strings.Split(c.rules, "\n")...).Below(c.dir); got != c.want {
			t.Errorf("rules %q: Below(%q) is %v, want %v", c.rules, c.dir, got, c.want)
		}
	}
}

func TestProtected(t *testing.T) {
	r := parse(t, "P *.log", "R keep/risky", "- /keep", "H /hidden")
	for path, want := range map[string]bool{
		"a.log": true, "x/a.log": true, "a": false, "keep/a": true, "keep/risky": true, "hidden/a": false, "hidden/a.log": true,
	} {
		if got := r.Protected(path, false); got != want {
			t.Errorf("Protected(%q) is %v, want %v", path, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for rule, want := range map[string]string{
		"":                               "is empty",
		"foo":                            "unknown kind of rule",
		"-foo":                           `unknown modifier 'f'; a space must separate`,
		"-":                              "has no pattern",
		"- ":                             "has no pattern",
		"exclude":                        "has no pattern",
		"exclude-foo bar":                "unknown kind of rule",
		". file":                         "merge files are not supported",
		"merge file":                     "merge files are not supported",
		"dir-merge,e .f":                 "merge files are not supported",
		":n- .f":                         "merge files are not supported",
		"# note":                         "comments are not rules",
		"-C":                             "modifier C is not supported",
		"-C x":                           "modifier C is not supported",
		"-w x":                           "modifier w is not supported",
		"-x user.*":                      "modifier x is not supported",
		"-/ /etc":                        "modifier / is not supported",
		"P,s x":                          "modifier s does not go with P",
		"! x":                            "clear takes neither",
		"clear,p":                        "clear takes neither",
		"- [ab":                          `has a "[" without its "]"`,
		"- []":                           `has a "[" without its "]"`,
		`- [a\`:                          `has a "[" without its "]"`,
		"- [[:word:]]":                   "unknown character class [:word:]",
		`- *\`:                           "ends in a backslash",
		"- a\x00":                        "NUL",
		"- " + strings.Repeat("x", 4096): "at most 4096",
	} {
		_, err := filter.Parse([]string{"- ok", rule})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "filter rule 2 ") {
			t.Errorf("rule %q: error is %v, want one that names rule 2 and says %q", rule, err, want)
		}
	}
}

// TestPathologicalPattern would run for ages in a matcher that backtracks.
func TestPathologicalPattern(t *testing.T) {
	begin := time.Now()
	path := strings.Repeat("a", 1000)
	for _, pattern := range []string{
		strings.Repeat("a*", 200) + "[b]", strings.Repeat("**a", 200) + "[b]", strings.Repeat("*/", 200) + "**[b]", strings.Repeat("[a]*?", 200) + "**[b]",
	} {
		r := parse(t, "- "+pattern)
		if !r.Included(path, false) || !r.Included(strings.Repeat("a/", 60)+"a", false) {
			t.Errorf("pattern %.10q... matches", pattern)
		}
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestLiteralNames checks that a name written as a rule, its wildcards escaped, selects that name alone.
func TestLiteralNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[ab*?\[\]\\!^-]{1,6}`).Draw(t, "name")
		other := rapid.StringMatching(`[ab*?\[\]\\!^-]{1,6}`).Draw(t, "other")
		escaped := name
		if strings.ContainsAny(name, "*?[") {
			escaped = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
		}
		r, err := filter.Parse([]string{"- /" + escaped})
		if err != nil {
			t.Fatal(err)
		}
		if r.Included(name, false) || r.Included(name+"/x", false) {
			t.Errorf("%q does not exclude %q", r, name)
		}
		if got := r.Included(other, false); got != (other != name) {
			t.Errorf("%q: Included(%q) is %v", r, other, got)
		}
	})
}

func FuzzRules(f *testing.F) {
	for _, rule := range []string{"- *.o", "+ /a/***", "exclude,! [[:alpha:]]*", "P x", "-s **/a", `- \*[!]a-]`} {
		f.Add(rule, "a/b/c.o")
	}
	f.Fuzz(func(t *testing.T, rule, path string) {
		r, err := filter.Parse([]string{rule})
		if err != nil {
			return
		}
		if r.String() == "" {
			return // it cleared the list
		}
		again := parse(t, strings.TrimPrefix(strings.Join(r.Args(), ""), "--filter="))
		for _, isDir := range []bool{false, true} {
			if r.Included(path, isDir) != again.Included(path, isDir) || r.Protected(path, isDir) != again.Protected(path, isDir) {
				t.Errorf("%q and %q decide differently about %q", rule, again, path)
			}
		}
		if dir, _, below := strings.Cut(path, "/"); below && !badPath(path) {
			if c := r.Below(dir); c != filter.Mixed && r.Included(path, false) != (c == filter.All) {
				t.Errorf("rule %q: Below(%q) is %v, Included(%q) is not", rule, dir, c, path)
			}
		}
	})
}

// FuzzRuleList: several rules written and read again decide alike, what Below promises of a directory holds at any depth below it, and what is
// below something that is left out is left out.
func FuzzRuleList(f *testing.F) {
	f.Add("- *.o\n+ /a/***\n- *", "a", "b/c.o")
	f.Add("- /a/*/\nP b\n!\n-s c", "a/b", "c")
	f.Add("+ */\n+ *.rpm\n- *", "x", "y.rpm")
	f.Add("-! */\nH a**b\nR ?[!a-c]", "a", "x/b")
	f.Fuzz(func(t *testing.T, text, dir, rest string) {
		r, err := filter.Parse(strings.Split(text, "\n"))
		if err != nil || badPath(dir) || badPath(rest) {
			return
		}
		again := parse(t)
		if r.String() != "" {
			again = parse(t, strings.Split(r.String(), "\n")...)
		}
		path := dir + "/" + rest
		for _, isDir := range []bool{false, true} {
			in := r.Included(path, isDir)
			if in != again.Included(path, isDir) || r.Protected(path, isDir) != again.Protected(path, isDir) {
				t.Errorf("%q and %q decide differently about %q", text, again, path)
			}
			if c := r.Below(dir); c != filter.Mixed && in != (c == filter.All) {
				t.Errorf("rules %q: Below(%q) is %v, but Included(%q, %v) is %v", text, dir, c, path, isDir, in)
			}
			if in && !r.Included(dir, true) {
				t.Errorf("rules %q carry %q, but not %q", text, path, dir)
			}
		}
	})
}

// badPath tells whether s is not clean.
func badPath(s string) bool {
	return s == "" || slices.ContainsFunc(strings.Split(s, "/"), func(part string) bool { return part == "" || part == "." || part == ".." }) || strings.Contains(s, "\x00")
}

// Millions of paths are asked about, each with some dozens of patterns at every level.
func TestMatchingAllocatesNothing(t *testing.T) {
	r := parse(t, "- repodata/", "- *.db.*", "- /modules/0*", "- ls-lR*", "- **/x[0-9]/**", "+ /a/***", "P *.iso")
	if n := testing.AllocsPerRun(100, func() { r.Included("pool/main/a/apt/apt_2.6.1_amd64.deb", false) }); n != 0 {
		t.Errorf("Included allocates %g times", n)
	}
}

func BenchmarkIncluded(b *testing.B) {
	patterns, _ := indexes.Presets("generic")
	r, err := indexes.Rules(patterns)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r.Included("pool/main/a/apt/apt_2.6.1_amd64.deb", false)
	}
}
