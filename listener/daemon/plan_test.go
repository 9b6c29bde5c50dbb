package daemon

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// A command line that is shown can be pasted: the shell takes it apart into the very arguments it was made of.
func TestShellLineIsReadBackByAShell(t *testing.T) {
	sh := testenv.Need(t, "sh")
	words := rapid.OneOf(
		rapid.StringMatching(`[ -~]*`),
		rapid.SampledFrom([]string{"", "'", "''", `\`, "$HOME", "`id`", "a b", "\n", "a=b", "~", "#", "*", "-n", "é", "\x1b[2J", "!1", "x\xff", "--", "{a,b}"}),
		rapid.Map(rapid.SliceOf(rapid.ByteRange(1, 255)), func(b []byte) string { return string(b) }),
	)
	rapid.Check(t, func(rt *rapid.T) {
		argv := rapid.SliceOfN(words, 1, 5).Draw(rt, "argv")
		line := shellLine(append([]string{"printf", `%s\0`}, argv...))
		out, err := exec.Command(sh, "-c", line).Output()
		if err != nil {
			rt.Fatalf("sh -c %q: %v", line, err)
		}
		var got []string
		for _, b := range bytes.SplitAfter(out, []byte{0}) {
			if s, ok := strings.CutSuffix(string(b), "\x00"); ok {
				got = append(got, s)
			}
		}
		if !slices.Equal(got, argv) {
			rt.Fatalf("%q is read as %q, want %q", line, got, argv)
		}
	})
}

func TestShellLine(t *testing.T) {
	for want, argv := range map[string][]string{
		"/usr/bin/rsync -a --bwlimit=10 rsync://host/m/ /srv/m": {"/usr/bin/rsync", "-a", "--bwlimit=10", "rsync://host/m/", "/srv/m"},
		`rsync '--rsh=ssh -i key' 'it'\''s'`:                    {"rsync", "--rsh=ssh -i key", "it's"},
		"'/opt/v=3/rsync' a=b":                                  {"/opt/v=3/rsync", "a=b"}, // else an assignment
	} {
		if got := shellLine(argv); got != want {
			t.Errorf("%q is written %s, want %s", argv, got, want)
		}
	}
}

func TestRunsShowEveryName(t *testing.T) {
	refused := []rsync.PathError{{Path: "link/x"}}
	got := runs([]rsync.Command{{Argv: []string{"rsync"}, List: []string{"a b", "c\n", `q"`, "\xff"}}, {Argv: []string{"rsync", "2"}}}, refused)
	if len(got) != 2 || !slices.Equal(got[0].Names, []string{"a b", `"c\n"`, `"q\""`, `"\xff"`}) || len(got[0].Refused) != 1 || got[1].Refused != nil {
		t.Errorf("runs are %+v", got)
	}
	if got := runs(nil, refused); len(got) != 1 || got[0].Command != "" || len(got[0].Refused) != 1 {
		t.Errorf("of nothing but refused names: %+v", got)
	}
}
