package itemize_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/itemize"
)

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`a\#012b`: "a\nb", `a\#134#012`: `a\#012`, `a\b`: `a\b`, `\#9`: `\#9`, `\#777`: `\#777`, `\#377`: "\xff"} {
		if got := itemize.Unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for line, want := range map[string]string{
		">f+++++++++ a": "made", "<f.st...... a": "made", "cd+++++++++ d/": "made", "hf          b => a": "made", "cL+++++++++ l -> t": "made",
		".f...p..... a": "changed", ".d..t...... ./": "changed", ".f....og.ax a": "changed", ">f????????? a": "made", ".L..T...... l -> t": "changed",
		"*deleting   a": "deleted", ".f          a": "untouched", ".d          a/": "untouched",
		">f++++++++ a": "", ">f+++++++++": "made", "": "", "deleting a": "", ">x+++++++++ a": "", ">f+.+++++++ a": "", "sent 1 bytes": "", ">f.ts...... a": "",
	} {
		change, rest, ok := itemize.Cut(line)
		got := ""
		switch {
		case !ok && rest != line:
			t.Errorf("%q: the rest is %q", line, rest)
		case !ok:
		case itemize.Deleted(change):
			got = "deleted"
		case itemize.Made(change):
			got = "made"
		case itemize.Untouched(change):
			got = "untouched"
		default:
			got = "changed"
		}
		if got != want {
			t.Errorf("%q is read as %q, want %q", line, got, want)
		}
	}
}

// escaped writes a name as rsync prints it: control characters, and a backslash that would read as one of them, as \#ooo.
func escaped(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c < 0x20 || c >= 0x7f || c == '\\' && strings.HasPrefix(name[i+1:], "#") {
			fmt.Fprintf(&b, `\#%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// FuzzUnescape: a name that rsync prints is read as that name, and nothing becomes longer.
func FuzzUnescape(f *testing.F) {
	f.Add("a\nb\\#012\\\xff")
	f.Add(`\#`)
	f.Fuzz(func(t *testing.T, name string) {
		if got := itemize.Unescape(escaped(name)); got != name {
			t.Errorf("%q is read as %q", name, got)
		}
		if got := itemize.Unescape(name); len(got) > len(name) {
			t.Errorf("%q becomes %q", name, got)
		}
	})
}
