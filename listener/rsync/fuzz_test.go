package rsync

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

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

// FuzzItem: an item that rsync prints about any name is read as just that name, and of what it may be about nothing lies outside of what was
// asked for, whatever the upstream calls it.
func FuzzItem(f *testing.F) {
	f.Add("d/f", "d/f", ">f+++++++++", uint8(0))
	f.Add("d/../../etc", "d", "cd+++++++++", uint8(2))
	f.Add("d/a|b\n\\#012", "d", "*deleting", uint8(3))
	f.Add("./d//x", ".", "cL+++++++++", uint8(1))
	modes := []Mode{Content, Level, Recursive, Delete, Fetch, Flip, Index, Verify}
	f.Fuzz(func(t *testing.T, name, listed, change string, mode uint8) {
		if strings.ContainsAny(name, "\x00") || strings.Contains(change, "|") || CheckPath(listed) != nil {
			return
		}
		it, ok := parseItem("recv|" + change + "|1|2|" + escaped(name))
		if !ok || it.Path+map[bool]string{true: "/"}[it.Dir] != name || it.Size != 1 || it.Bytes != 2 {
			t.Fatalf("%q is read as %+v, %v", name, it, ok)
		}
		m := modes[int(mode)%len(modes)]
		if !newWanted(m, []string{listed}, false).allows(it) {
			return
		}
		above := below(listed, it.Path) && it.Dir && it.Op != Deleted
		if it.Path != path.Clean(it.Path) || strings.HasPrefix(it.Path, "/") || strings.HasPrefix(it.Path, "..") || !below(it.Path, listed) && !above {
			t.Errorf("a %s of %q allows %+v", m, listed, it)
		}
		if m == Content && it.Path != listed && !above {
			// What a directory held that makes way is told as deleted.
			if it.Op != Deleted {
				t.Errorf("a %s of %q allows %+v", m, listed, it)
			}
		}
	})
}

// FuzzUpstream: no address that is taken reaches rsync as an option or a pattern, or leads out of what it names.
func FuzzUpstream(f *testing.F) {
	for _, u := range []string{"rsync://h/m", "rsync://u@h:873/m/a/b/", "u@h:/srv", "[::1]:/x", "rsync://[::1]:1/m", "-e sh:/x", "h:/a/../b", "rsync://h/m/*", "rsync://h:1\n/m"} {
		f.Add(u, "--rsync-path=rsync")
	}
	f.Fuzz(func(t *testing.T, address, arg string) {
		s, err := Upstream{URL: address, Args: []string{arg}}.parse()
		if err != nil {
			return
		}
		rest, isURL := strings.CutPrefix(s.url, "rsync://")
		switch {
		case !strings.HasSuffix(s.url, "/") || strings.HasPrefix(s.url, "-") || strings.HasPrefix(rest, "-"):
			t.Errorf("%q becomes %+v", address, s)
		case strings.ContainsAny(s.url, "\n\x00*?'\"`$;|&<>") || !isURL && strings.ContainsAny(s.url, " ["+"\t") && !strings.Contains(s.url, "[") || s.folder != "" && CheckPath(s.folder) != nil:
			t.Errorf("%q becomes %+v", address, s)
		}
		if !strings.HasPrefix(arg, "-") || strings.ContainsAny(arg, " \n;|&$`'\"") || slices.ContainsFunc([]string{"--delete", "--rsh", "-e", "--temp-dir", "--files-from"}, func(o string) bool { return strings.HasPrefix(arg, o) }) {
			t.Errorf("option %q is allowed", arg)
		}
	})
}

// FuzzEntries: rsync reads of the list on its input the names that were asked for, each once and in the folder of the upstream.
func FuzzEntries(f *testing.F) {
	f.Add("a\nd/b", "", uint8(0))
	f.Add("a\\\n[x]\n\\", "folder/x", uint8(1))
	f.Add("-x\n#y\n;z\n/a\n..\n", "f", uint8(2))
	modes := []Mode{Content, Level, Recursive, Delete, Fetch, Flip}
	f.Fuzz(func(t *testing.T, text, folder string, mode uint8) {
		j := Job{Mode: modes[int(mode)%len(modes)], Paths: strings.Split(text, "\n")}
		if j.Mode == Fetch {
			j.Into = "/nowhere"
		}
		if j.check() != nil || folder != "" && CheckPath(folder) != nil {
			return
		}
		var got []string
		r := &Runner{src: source{folder: folder}}
		for _, p := range cut(root{}, j) {
			if len(p.names) == 0 || len(p.names) > MaxNames || !slices.IsSorted(p.names) {
				t.Errorf("a list of %q", p.names)
			}
			for _, line := range r.entries(j, p) {
				name, ok := strings.CutPrefix(line, folder+map[bool]string{true: "/./"}[folder != ""])
				if name = strings.TrimSuffix(name, "/"); !ok || strings.Contains(line, "\x00") || CheckPath(name) != nil {
					t.Errorf("%q becomes %q", text, line)
				}
				got = append(got, name)
			}
		}
		for _, want := range j.Paths {
			if n := strings.Count("\x00"+strings.Join(got, "\x00\x00")+"\x00", "\x00"+want+"\x00"); n > 1 || n == 0 && !coveredBy(got, want) {
				t.Errorf("%q is listed %d times in %q", want, n, got)
			}
		}
		for _, name := range got {
			if !slices.Contains(j.Paths, name) {
				t.Errorf("nobody asked for %q", name)
			}
		}
	})
}

func coveredBy(list []string, name string) bool {
	return slices.ContainsFunc(list, func(dir string) bool { return below(name, dir) })
}

// FuzzSaid: whatever rsync prints on its standard error, or an upstream makes it print, a class comes of it, and a path is never longer than
// what was said.
func FuzzSaid(f *testing.F) {
	f.Add(`rsync: [sender] link_stat "/d/\#012" (in pub) failed: No such file or directory (2)`, 23)
	f.Add("@ERROR: max connections (1) reached -- try again later", 5)
	f.Add("could not make way for new regular file: d/f", 23)
	f.Add("ERROR: d/f failed verification -- update discarded (will try again).", 0)
	known := []Class{"", Busy, Interrupted, Timeout, Vanished, Partial, DiskFull, MaxDelete, Auth, Unavailable, Unrequested, Permanent}
	f.Fuzz(func(t *testing.T, line string, code int) {
		var paths []PathError
		if p, ok := pathError(line); ok {
			if p.Kind == "" || len(p.Path) > len(line) {
				t.Errorf("%q is read as %+v", line, p)
			}
			paths = append(paths, p)
		}
		got := classify(code, line, paths)
		if !slices.Contains(known, got) || got == "" && (code != 0 || len(paths) > 0) || code == 5 && strings.Contains(line, "max connections") && got != Busy {
			t.Errorf("status %d and %q are of class %q", code, line, got)
		}
		if link, ok := unsafeLink(line); ok && len(link) > len(line) {
			t.Errorf("%q is read as %q", line, link)
		}
	})
}
