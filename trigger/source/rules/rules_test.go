package rules_test

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/trigger/source/rules"
)

func newRules(t *testing.T, filters, expressions []string) *rules.Rules {
	t.Helper()
	f, err := filter.Parse(filters)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rules.New(f, expressions)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnnounced(t *testing.T) {
	for _, c := range []struct {
		name        string
		filters     []string
		expressions []string
		yes, no     []string // directories end in a slash
	}{
		{"nothing said", nil, nil,
			[]string{"a", "a/", "a/.mirrorbus", ".~tmp", "in\xff\xfevalid", "new\nline"},
			[]string{".mirrorbus/", ".mirrorbus/head", ".~tmp~/", "pool/.~tmp~/a", "pool/.rsync-partial/a.rpm"}},
		{"rsync's rules", []string{"- *.tmp", "- /incoming/"}, nil,
			[]string{"a", "pool/incoming/a", "a.tmp2"},
			[]string{"a.tmp", "pool/a.tmp", "incoming/", "incoming/a", "a.tmp/b"}},
		{"files", nil, []string{`-f\.tmp$`},
			[]string{"a", "a.tmp/", "a.tmp/b", "a.tmp2"},
			[]string{"a.tmp", "pool/a.tmp"}},
		{"the first decides", nil, []string{`+f\.rpm$`, `-f^pool/`},
			[]string{"pool/a.rpm", "pool/", "pool/sub/", "a"},
			[]string{"pool/a"}},
		{"both kinds", nil, []string{`-*(^|/)\.git(/|$)`},
			[]string{"git", "pool/.gitignore"},
			[]string{".git/", "pool/.git/", "pool/.git/config"}},
		{"not looked into", nil, []string{`-w^incoming$`},
			[]string{"incoming/", "incoming2/a", "pool/incoming/a"},
			[]string{"incoming/a", "incoming/a/b"}},
		{"only that", nil, []string{`+*^pool(/|$)`, `-*.`},
			[]string{"pool/", "pool/a"},
			[]string{"other", "other/a", "spool/"}},
		{"any bytes", nil, []string{"-f^in.+valid$", `-f\n`},
			[]string{"valid"},
			[]string{"in\xff\xfevalid", "new\nline"}},
		{"both lists", []string{"- *.tmp"}, []string{`-f\.bak$`},
			[]string{"a"},
			[]string{"a.tmp", "a.bak"}},
	} {
		r := newRules(t, c.filters, c.expressions)
		for want, names := range map[bool][]string{true: c.yes, false: c.no} {
			for _, n := range names {
				path, isDir := strings.CutSuffix(n, "/")
				if got := r.Announced(path, isDir); got != want {
					t.Errorf("%s: %q is announced: %v, want %v", c.name, n, got, want)
				}
			}
		}
	}
}

func TestEnters(t *testing.T) {
	r := newRules(t, []string{"- /incoming/", "- /closed/***"}, []string{`-w^cache$`, `-f\.tmp$`})
	for dir, want := range map[string]bool{
		"": true, "pool": true, "pool/incoming": true, "incoming": false, "closed": false, "cache": false, "cache/a": false, "pool/cache": true,
		".mirrorbus": false, ".~tmp~": false, "pool/.rsync-partial": false,
	} {
		if got := r.Enters(dir); got != want {
			t.Errorf("%q is entered: %v, want %v", dir, got, want)
		}
	}
}

func TestAll(t *testing.T) {
	for _, c := range []struct {
		r    *rules.Rules
		want bool
	}{
		{nil, true}, {newRules(t, nil, nil), true}, {newRules(t, []string{"- *.tmp"}, nil), false}, {newRules(t, nil, []string{"-fx"}), false},
	} {
		if got := c.r.All(); got != c.want {
			t.Errorf("%v: all is %v, want %v", c.r, got, c.want)
		}
	}
	if !(*rules.Rules)(nil).Announced("a", false) || (*rules.Rules)(nil).Enters(".mirrorbus") || !(*rules.Rules)(nil).Enters("a") {
		t.Error("no rules do not announce everything")
	}
}

func TestNewRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "must be + or -",
		"-f":                             "must be + or -",
		"f^a":                            "must be + or -",
		"-x^a":                           `unknown kind 'x'`,
		"-f(":                            "missing closing )",
		"-f" + strings.Repeat("a", 5000): "is 5002 bytes, at most 4096",
	} {
		if _, err := rules.New(nil, []string{"+fa", text}); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "rule 2 ") {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
}

func FuzzNew(f *testing.F) {
	f.Add(`-f\.tmp$`, "a.tmp")
	f.Add(`+*^pool(/|$)`, "in\xff\xfevalid/\n")
	f.Fuzz(func(_ *testing.T, text, path string) {
		r, err := rules.New(nil, []string{text})
		if err != nil {
			return
		}
		r.Announced(path, false)
		r.Enters(path)
	})
}
