package changelist_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/changelist"
)

// summary writes names as ops and paths; "?" is for what is to be looked at.
func summary(names []trigger.Name) string {
	var words []string
	for _, n := range names {
		op := "?"
		if n.Op != 0 {
			op = string(rune(n.Op))
		}
		words = append(words, fmt.Sprintf("%s%q", op, n.Path))
	}
	return strings.Join(words, " ")
}

const rsyncOutput = `sending incremental file list
created directory dst
.d..t...... ./
cd+++++++++ d/
>f+++++++++ d/a b
>f.st...... changed
.f...p..... chmod
.f          same
cL+++++++++ link -> d/a b
hf+++++++++ second => d/a b
hf          third => d/a b
*deleting   gone/x
*deleting   gone/
*deleting   was-dir/below
*deleting   was-dir/
>f+++++++++ was-dir
*deleting   is-dir
cd+++++++++ is-dir/
cS+++++++++ socket
cD+++++++++ device
.d...p..... odd\#012name/
>f+++++++++ back\#134#012slash
>f+++++++++ caf\#351 -> x
skipping non-regular file "fifo"
cannot delete non-empty directory: kept

Number of files: 3 (reg: 1, dir: 2)
Literal data: 0 bytes
sent 1,234 bytes  received 35 bytes  2,538.00 bytes/sec
total size is 5.2K  speedup is 0.01
`

const daemonLog = `2026/11/21 22:49:19 [6908] rsyncd version 3.5.0 starting, listening on port 29873
2026/11/21 22:49:19 [7010] connect from localhost (127.0.0.1)
2026/11/21 22:49:19 [7010] rsync allowed access on module m from localhost (127.0.0.1)
2026/11/21 22:49:19 [7010] rsync to m/sub from dir/ from localhost (127.0.0.1)
2026/11/21 22:49:19 [7010] receiving file list
2026/11/21 22:49:19 [7011] rsync to m from u@h (127.0.0.1)
2026/11/21 22:49:19 [7010] >f+++++++++ a
2026/11/21 22:49:19 [7279] rsync on m/sub/a from localhost (127.0.0.1)
2026/11/21 22:49:19 [7279] building file list
2026/11/21 22:49:19 [7279] <f+++++++++ fetched
2026/11/21 22:49:20 [7279] rsync: [sender] link_stat "nosuch" (in m) failed: No such file or directory (2)
2026/11/21 22:49:19 [7010] .d..t...... ./
2026/11/21 22:49:19 [7011] >f+++++++++ top
2026/11/21 22:49:20 [7376] unknown module 'zz' tried from localhost (127.0.0.1)
2026/11/21 22:49:20 [7376] module-list request from localhost (127.0.0.1)
2026/11/21 22:49:19 [7010] *deleting   b
2026/11/21 22:49:19 [7010] sent 75 bytes  received 250 bytes  total size 7
2026/11/21 22:49:20 [8000] <f+++++++++ client
`

const rsyncNames = `+"d" +"d/a b" +"changed" ="chmod" +"link" +"second" +"third" -"gone/x" -"gone" +"was-dir" +"is-dir" ="odd\nname" ` +
	`+"back\\#012slash" +"caf\xe9 -> x"`

func TestRead(t *testing.T) {
	log := ""
	for line := range strings.Lines(rsyncOutput) {
		log += "2026/11/21 21:02:03 [4711] " + line
	}
	log += "2026/11/21 21:02:04 [4711] rsync: [sender] link_stat \"/x\" failed: No such file or directory (2)\n" +
		"2026/11/21 21:02:04 [4711] rsync error: some files/attrs were not transferred (code 23) at main.c(1338) [sender=3.5.0]\n" +
		"2026/11/21 21:02:04 [4711] sent 46 bytes  received 120 bytes  total size 9\n"
	for name, c := range map[string]struct {
		o          changelist.Options
		list, want string
	}{
		"names":         {changelist.Options{Format: changelist.Names}, "a\n-b\nd:c\n\n+r:x", `?"a" -"b" d"c" +"r:x"`},
		"NULs":          {changelist.Options{Format: changelist.Names, NUL: true}, "a\nb\x00", `?"a\nb"`},
		"names in base": {changelist.Options{Format: changelist.Names, Base: "x/y"}, "a\n-b/c\n.", `?"x/y/a" -"x/y/b/c" ?"x/y"`},
		"strip":         {changelist.Options{Format: changelist.Names, Strip: "/srv/m/"}, "/srv/m/a\n/srv/m", `?"a"`},
		"strip to base": {changelist.Options{Format: changelist.Names, Strip: "./up", Base: "x"}, "./up/a\n", `?"x/a"`},
		"itemize":       {changelist.Options{Format: changelist.Itemize}, rsyncOutput, rsyncNames},
		"in base":       {changelist.Options{Format: changelist.Itemize, Base: "x"}, ".d..t...... ./\n>f+++++++++ a\n", `="x" +"x/a"`},
		"log":           {changelist.Options{Format: changelist.RsyncLog}, log, rsyncNames},
		"daemon's log":  {changelist.Options{Format: changelist.RsyncLog, Base: "in"}, daemonLog, `+"in/sub from dir/a" ="in/sub from dir" +"in/top" -"in/sub from dir/b" +"in/client"`},
		"empty":         {changelist.Options{Format: changelist.Itemize}, "", ""},
		"out-format":    {changelist.Options{Format: "%i %n"}, "cL+++++++++ a -> b\nhf+++++++++ c => d -> e\n>f+++++++++ f\n", `+"a -> b" +"c => d -> e" +"f"`},
		"long format":   {changelist.Options{Format: "mb|%o|%i|%l|%b|%n%L"}, "mb|recv|>f+++++++++|12|0|a|b\nmb|del.|*deleting  |0|0|c\n", `+"a|b" -"c"`},
		"wins":          {changelist.Options{Format: changelist.Itemize}, ".f...p..... a\n>f.st...... a\n>f.st...... b\n.f...p..... b\n>f+++++++++ c\n*deleting   c\n*deleting   d\n.f..t...... d\n", `+"a" +"b" -"c" +"d"`},
		"git":           {changelist.Options{Format: changelist.Git}, "A\x00a\nb\x00M\x00m\x00M095\x00mm\x00D\x00-d\x00R100\x00old\x00new\x00C75\x00from\x00to\x00T\x00t\x00", `+"a\nb" +"m" +"mm" -"-d" -"old" +"new" +"to" +"t"`},
		"git swap":      {changelist.Options{Format: changelist.Git}, "R100\x00a\x00b\x00R100\x00b\x00a\x00", `+"a" +"b"`},
		"reprepro": {changelist.Options{Format: changelist.Reprepro, Base: "debian"}, "BEGIN-DISTRIBUTION\tsid\tdists/sid\tunstable\nDISTKEEP\tdists/sid\tx\n" +
			"DISTFILE\tdists/sid\tmain/binary-all/Packages.gz\t/srv/debian/dists/sid/main/binary-all/Packages.gz\nDISTSYMLINK\tdists/sid\tl\tt\nDISTDELETE\tdists/sid\told\n" +
			"END-DISTRIBUTION\tsid\tdists/sid\nPOOLNEW\tpool/main/a/a/a_1.deb\nPOOLDELETE\tpool/main/a/a/a_0.deb\n",
			`+"debian/dists/sid/main/binary-all/Packages.gz" +"debian/dists/sid/l" -"debian/dists/sid/old" +"debian/pool/main/a/a/a_1.deb" -"debian/pool/main/a/a/a_0.deb"`},
	} {
		t.Run(name, func(t *testing.T) {
			names, err := changelist.Read(strings.NewReader(c.list), c.o)
			if got := summary(names); err != nil || got != c.want {
				t.Errorf("%v\n got %s\nwant %s", err, got, c.want)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct{ format, list, want string }{
		"a cut line":             {changelist.Itemize, ">f+++++++++ a\n>f+++++++++ b", `line 2: ">f+++++++++ b": the list ends in the middle of it, so it was cut short`},
		"another tool's output":  {changelist.Itemize, ">f+++++++++ a\nhello\n", `line 2: "hello" is not what rsync prints in this format`},
		"complaints":             {changelist.Itemize, "rsync: [sender] link_stat \"/x\" failed: No such file or directory (2)\n", `line 1: "rsync: [sender]`},
		"names only":             {changelist.Itemize, "a/b\n", `line 1: "a/b" is not`},
		"nine columns":           {changelist.Itemize, ">f+++++++ a\n", `line 1: `},
		"a link with two arrows": {changelist.Itemize, "cL+++++++++ a -> b -> c\n", `line 1: "cL+++++++++ a -> b -> c" has the arrow twice`},
		"a hard link with two":   {changelist.Itemize, "hf+++++++++ a => b => c\n", `has the arrow twice`},
		"no name":                {changelist.Itemize, ">f+++++++++ \n", `line 1: `},
		"a long line":            {changelist.Itemize, ">f+++++++++ " + long + "\n", `is longer than 65536 bytes`},
		"a log without stamps":   {changelist.RsyncLog, ">f+++++++++ a\n", `does not begin as a line of rsync's log does`},
		"a log of a push beyond": {changelist.RsyncLog, "2026/11/21 22:49:19 [1] rsync to m/../x from h (::1)\n", `cannot be placed in the module: path "../x"`},
		"an unknown line in one": {changelist.RsyncLog, "2026/11/21 22:49:19 [1] a\n", `line 1: "a" is not what rsync logs in this format`},
		"format without name":    {"%i %f", "", `"%i %f": %f cannot be read there`},
		"format without change":  {"%n", "", `"%n": %n cannot be read there`},
		"format that ends early": {"%i %", "", `ends with %`},
		"text after the name":    {"%i %n|", "", `cannot be read there`},
		"only a change":          {"%i", "", `must have %i, and %n as its last`},
		"values side by side":    {"%l%b %i %n", "", `what stands before %b cannot be told from it`},
		"a number at the name":   {"%i %l%n", "", `what stands before %n cannot be told from it`},
		"a number and a digit":   {"%l0 %i %n", "", `what stands before %i cannot be told from it`},
		"unknown format":         {"itemise", "", `format "itemise" is not known; there are names, itemize, rsync-log, git, reprepro`},
		"another out-format":     {"mb|%i|%n", ">f+++++++++ a\n", `line 1: `},
		"git in lines":           {changelist.Git, "M\ta\nD\tb\n", `or is not separated by NULs: give git diff -z`},
		"git cut":                {changelist.Git, "M\x00a\x00D\x00b", `word 4: "b": the list ends in the middle of it`},
		"git cut after status":   {changelist.Git, "M\x00a\x00R100\x00b\x00", `word 4: the name after it is missing`},
		"git unmerged":           {changelist.Git, "U\x00a\x00", `word 1: "U" is no status`},
		"git raw":                {changelist.Git, ":100644 100644 a b M\x00a\x00", `is no status`},
		"git empty name":         {changelist.Git, "M\x00\x00", `word 2: is an empty name`},
		"git long name":          {changelist.Git, "M\x00" + long + "\x00", `word 2: `},
		"reprepro unknown":       {changelist.Reprepro, "POOLMOVED\ta\n", `line 1: "POOLMOVED\ta" is no line of reprepro's .outlog`},
		"reprepro short":         {changelist.Reprepro, "DISTFILE\tdists/sid\n", `line 1: `},
		"reprepro empty":         {changelist.Reprepro, "POOLNEW\t\n", `line 1: `},
		"reprepro log":           {changelist.Reprepro, "2026-11-21 21:00:00 add sid deb main all a 1\n", `line 1: `},
	} {
		t.Run(name, func(t *testing.T) {
			names, err := changelist.Read(strings.NewReader(c.list), changelist.Options{Format: c.format})
			if err == nil || !strings.Contains(err.Error(), c.want) || names != nil {
				t.Errorf("%.200s %.200v, want %s", summary(names), err, c.want)
			}
		})
	}
	for want, o := range map[string]changelist.Options{
		`base path "../x": `:                      {Format: changelist.Names, Base: "../x"},
		"-0 is for lists of names":                {Format: changelist.Git, NUL: true},
		`name "/srv/mm/a" is not in /srv/m`:       {Format: changelist.Names, Strip: "/srv/m"},
		`path "../a"`:                             {Format: changelist.Names, Base: "b"},
		`has a component ".."`:                    {Format: changelist.Names, Base: "b", Strip: "x"},
		`format "" is not known; there are names`: {},
	} {
		list := map[string]string{"/srv/m": "/srv/mm/a\n", "x": "x/../../a\n", "": "../a\n"}[o.Strip]
		if names, err := changelist.Read(strings.NewReader(list), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %s %v, want %s", o, summary(names), err, want)
		}
	}
}

// endless is a list that does not end, in one line or many, and counts what was read of it.
type endless struct {
	text string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[(e.read+i)%len(e.text)]
	}
	e.read += len(p)
	if e.read > 1<<32 {
		return 0, errors.New("nobody stopped")
	}
	return len(p), nil
}

func TestOneEndlessLineIsNotRead(t *testing.T) {
	for _, format := range []string{changelist.Itemize, changelist.RsyncLog, changelist.Git, changelist.Reprepro} {
		e := &endless{text: "x"}
		if _, err := changelist.Read(e, changelist.Options{Format: format}); err == nil || !strings.Contains(err.Error(), "is longer than 65536 bytes") || e.read > 1<<20 {
			t.Errorf("%s: %v after %d bytes", format, err, e.read)
		}
	}
}

func TestAListThatCannotBeRead(t *testing.T) {
	r := io.MultiReader(strings.NewReader(">f+++++++++ a\n"), brokenReader{})
	if _, err := changelist.Read(r, changelist.Options{Format: changelist.Itemize}); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

var errBroken = errors.New("broken")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

// FuzzRead: of any list come paths that each stand once, and nothing that the list does not hold.
func FuzzRead(f *testing.F) {
	f.Add(rsyncOutput, uint8(0), "")
	f.Add("2026/11/21 21:02:03 [4711] >f+++++++++ a\n", uint8(1), "b")
	f.Add(daemonLog, uint8(1), "in")
	f.Add("M\x00a\x00R1\x00b\x00c\x00", uint8(2), "")
	f.Add("POOLNEW\ta\nDISTFILE\td\tn\tx\n", uint8(3), "")
	f.Add("mb|>f+++++++++|a\n", uint8(4), "")
	formats := []string{changelist.Itemize, changelist.RsyncLog, changelist.Git, changelist.Reprepro, "mb|%i|%n%L"}
	f.Fuzz(func(t *testing.T, list string, n uint8, base string) {
		names, err := changelist.Read(strings.NewReader(list), changelist.Options{Format: formats[int(n)%len(formats)], Base: base})
		if err != nil {
			if names != nil {
				t.Errorf("names beside %v", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, n := range names {
			if seen[n.Path] || n.Op != 0 && n.Op != event.Write && n.Op != event.Meta && n.Op != event.Gone {
				t.Errorf("%+v", n)
			}
			seen[n.Path] = true
			if base != "" && n.Path != base && !strings.HasPrefix(n.Path, base+"/") {
				t.Errorf("%q is outside of %q", n.Path, base)
			}
		}
	})
}

// FuzzFormat: a format that is accepted reads what rsync would print with it.
func FuzzFormat(f *testing.F) {
	f.Add("%i %n", "a")
	f.Add("x%o %l|%i %b/%n%L", "b c")
	f.Fuzz(func(t *testing.T, format, name string) {
		o := changelist.Options{Format: format}
		if !strings.Contains(format, "%") || o.Check() != nil || name == "" || strings.ContainsAny(name+format, "\n\\") || strings.Trim(name, "./") != name {
			return
		}
		line := strings.NewReplacer("%i", ">f+++++++++", "%n", name, "%L", "", "%o", "recv", "%l", "1", "%b", "2").Replace(format)
		names, err := changelist.Read(strings.NewReader(line+"\n"), o)
		if err != nil || len(names) != 1 || names[0].Path != name {
			t.Errorf("%q of %q: %v %v", line, format, names, err)
		}
	})
}
