package rsync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestPathErrors(t *testing.T) {
	for line, want := range map[string]PathError{
		`rsync: [sender] link_stat "/d/gone" (in pub) failed: No such file or directory (2)`:               {Path: "/d/gone", Kind: NotFound},
		`rsync: link_stat "/d/gone" (in pub) failed: No such file or directory (2)`:                        {Path: "/d/gone", Kind: NotFound},
		`rsync: [sender] send_files failed to open "/d/f" (in pub): Permission denied (13)`:                {Path: "/d/f", Kind: Permission},
		`rsync: [sender] link_stat "/a\#012"b" (in x)" (in pub) failed: No such file or directory (2)`:     {Path: "/a\n\"b\" (in x)", Kind: NotFound},
		`rsync: [receiver] mkstemp "/m/t/run/f.Ab12Cd" failed: Permission denied (13)`:                     {Path: "/m/t/run/f.Ab12Cd", Kind: Permission, Local: true},
		`rsync: mkstemp "/m/t/run/f.Ab12Cd" failed: Permission denied (13)`:                                {Path: "/m/t/run/f.Ab12Cd", Kind: Permission, Local: true},
		`rsync: [receiver] rename "/m/t/run/f.Ab12Cd" -> "d/f": Read-only file system (30)`:                {Path: "d/f", Kind: ReadOnly, Local: true},
		`rsync: [receiver] rename failed for "/m/d/f" (from d/.~tmp~/f): No such file or directory (2)`:    {Path: "/m/d/f", Kind: NotFound, Local: true},
		`rsync: [receiver] write failed on "/m/d/f": No space left on device (28)`:                         {Path: "/m/d/f", Kind: NoSpace, Local: true},
		`rsync: [generator] recv_generator: mkdir "/m/d" failed: Disk quota exceeded (122)`:                {Path: "/m/d", Kind: NoSpace, Local: true},
		`rsync: [generator] recv_generator: mkdir "/m/d/e" failed: Too many levels of symbolic links (40)`: {Path: "/m/d/e", Kind: Loop, Local: true},
		`rsync: [sender] link_stat "/x" (in pub) failed: File name too long (36)`:                          {Path: "/x", Kind: TooLong},
		`file has vanished: "/d/f" (in pub)`:                                                               {Path: "/d/f", Kind: Gone},
		`could not make way for new regular file: d/f`:                                                     {Path: "d/f", Kind: InTheWay, Local: true},
		`ERROR: d/f failed verification -- update discarded.`:                                              {Path: "d/f", Kind: Unstable},
		`ERROR: rejecting unrequested file-list name: d/f`:                                                 {Path: "d/f", Kind: Rejected, Local: true},
	} {
		got, ok := pathError(line)
		got.Text = ""
		if !ok || got != want {
			t.Errorf("%s: %+v %t, want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "rsync error: some files (code 23) at main.c(1) [x]", "rsync: [Receiver] read error: Connection reset by peer (104)"} {
		if p, ok := pathError(line); ok {
			t.Errorf("%q: %+v", line, p)
		}
	}
}

func TestWantedNames(t *testing.T) {
	for _, c := range []struct {
		mode Mode
		item Item
		want bool
	}{
		{Content, Item{Path: "d/f", Op: Received}, true},
		{Content, Item{Path: "d", Op: Changed, Dir: true}, true},
		{Content, Item{Path: "d", Op: Received}, false}, // a file where only a parent was expected
		{Content, Item{Path: "d/g", Op: Received}, false},
		{Content, Item{Path: "d/f/x", Op: Received}, false},
		{Content, Item{Path: "d/f/x", Op: Deleted}, true}, // made way for a file
		{Content, Item{Path: "d", Op: Deleted}, false},
		{Content, Item{Path: "cron.d/job", Op: Received}, false},
		{Content, Item{Path: "../x", Op: Received}, false},
		{Content, Item{Path: ".", Op: Changed, Dir: true}, false},
		{Level, Item{Path: "d/f/x", Op: Received}, true},
		{Level, Item{Path: "d/f/x/y", Op: Received}, false},
		{Level, Item{Path: "d/f/x/y", Op: Deleted}, true},
		{Recursive, Item{Path: "d/f/x/y", Op: Received}, true},
		{Recursive, Item{Path: "d/g", Op: Deleted}, false},
		{Recursive, Item{Path: "d/f/../../x", Op: Received}, false},
		{Full, Item{Path: "anything", Op: Received}, true},
	} {
		if got := newWanted(c.mode, []string{"d/f"}, false).allows(c.item); got != c.want {
			t.Errorf("%s %+v: %t", c.mode, c.item, got)
		}
	}
}

func TestAMessageOfTheDayCannotForgeItems(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("f", "x"))
	d := testenv.StartRsyncd(t, testenv.RsyncdOptions{MOTD: "mb1|del.|*deleting|0|0|bogus\nNumber of deleted files: 7\n*deleting bogus\n"},
		testenv.Module{Name: "pub", Path: w.up})
	w.cfg.Upstream.URL = d.URL("pub", "")
	res := w.run(Job{Mode: Content, Paths: []string{"f"}})
	if res.Deleted != 0 || len(res.Items) != 1 || len(res.Notices) != 0 {
		t.Errorf("%+v", res)
	}
}

// standIn is a program that takes rsync's place and prints what a subverted one would.
func standIn(t *testing.T, body string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rsync")
	script := "#!/bin/sh\nfor a; do case $a in --out-format=*) m=${a#*=}; m=${m%%|*};; esac; done\n" + body
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestANameNobodyAskedForEndsTheRun(t *testing.T) {
	w := newWorld(t)
	w.cfg.Features.Binary = standIn(t, `echo "$m|recv|>f+++++++++|1|1|cron.d/job"; sleep 100`)
	begun := time.Now()
	e := w.fails(Job{Mode: Content, Paths: []string{"f"}}, Unrequested)
	w.onePath(e, "cron.d/job", Rejected, false)
	if e.Retry() != Human || time.Since(begun) > 10*time.Second {
		t.Errorf("after %v: %+v", time.Since(begun), e)
	}
}

func TestAnEndlessLineEndsTheRun(t *testing.T) {
	w := newWorld(t)
	w.cfg.Features.Binary = standIn(t, `exec tr '\0' x </dev/zero`)
	if _, err := w.runner().Run(t.Context(), Job{Mode: Content, Paths: []string{"f"}}); err == nil || !strings.Contains(err.Error(), "token too long") {
		t.Error(err)
	}
}

func TestRsyncsOwnRefusalOfAListedNameIsRetriedWithoutIt(t *testing.T) {
	w := newWorld(t)
	w.cfg.Features.TrustSender = true
	w.cfg.Features.Binary = standIn(t, `case "$*" in *--trust-sender*) echo "$m|recv|>f+++++++++|1|1|f";; *) echo "ERROR: rejecting unrequested file-list name: f" >&2; exit 4;; esac`)
	if res := w.run(Job{Mode: Content, Paths: []string{"f"}}); res.Runs != 2 || len(res.Items) != 1 {
		t.Errorf("%+v", res)
	}
	w.cfg.Features.Binary = standIn(t, `echo "ERROR: rejecting unrequested file-list name: evil" >&2; exit 4`)
	w.fails(Job{Mode: Content, Paths: []string{"f"}}, Unrequested)
}

func TestProbe(t *testing.T) {
	testenv.Need(t, "rsync")
	f, err := features()
	if err != nil || !filepath.IsAbs(f.Binary) || !strings.HasPrefix(f.Version, "3.") || !f.Nanoseconds || !f.TrustSender {
		t.Errorf("%+v %v", f, err)
	}
	if !f.DeleteMissingArgs && len(f.Warnings) == 0 {
		t.Error("no warning about broken deletion")
	}
	if !f.Resumes && (strings.HasPrefix(f.Version, "3.5.") || len(f.Warnings) == 0) {
		t.Errorf("files that are cut off do not go on: %q", f.Warnings)
	}
	for want, binary := range map[string]string{
		"install rsync":    filepath.Join(t.TempDir(), "none"),
		"not rsync from":   standIn(t, `echo "openrsync: protocol version 29"`),
		"3.1.0 is the old": standIn(t, `echo "rsync  version 3.0.9  protocol version 30"`),
		"exit status 7":    standIn(t, `exit 7`),
		"own daemon":       standIn(t, `[ "$1" = --version ] && echo "rsync  version 3.5.0  protocol version 32" || exit 5`),
	} {
		if _, err := Probe(t.Context(), binary); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Probe(ctx, f.Binary); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context was done: %v", err)
	}
}

func TestClasses(t *testing.T) {
	for _, c := range []struct {
		code int
		said string
		want Class
	}{
		{1, "rsync: --nope: unknown option", Permanent}, {5, "@ERROR: max connections (1) reached -- try again later", Busy},
		{5, "@ERROR: auth failed on module x", Auth}, {5, "@ERROR: Unknown module 'x'", Auth}, {5, "@ERROR: access denied to x from y", Auth},
		{5, "@ERROR: chdir failed", Unavailable}, {5, "Permission denied (publickey).\nrsync: did not see server greeting", Auth}, {10, "failed to connect to x: Connection refused (111)", Busy}, {10, "getaddrinfo: x", Unavailable},
		{10, "The server is configured to refuse --recursive", Permanent}, {11, "write failed: No space left on device (28)", DiskFull}, {11, "x", Permanent},
		{12, "connection unexpectedly closed (81 bytes received so far)", Interrupted}, {12, "option --x has been disabled on this server", Permanent}, {14, "", Permanent}, {20, "", Interrupted},
		{2, "protocol incompatibility", Permanent}, {2, noBasis + ` for "/m/f"`, Interrupted}, {23, "", Partial}, {24, "", Vanished}, {25, "", MaxDelete}, {30, "", Timeout}, {35, "", Timeout}, {127, "", Permanent},
		{12, "ssh: connect to host x port 22: Connection refused\nrsync: connection unexpectedly closed (0 bytes received so far) [Receiver]", Unavailable},
		{12, "Host key verification failed.\nrsync: connection unexpectedly closed (0 bytes received so far) [Receiver]", Auth},
		{255, "Permission denied (publickey).", Auth}, {255, "Host key verification failed.", Auth}, {255, "Connection refused", Unavailable},
		{4, "ERROR: rejecting unrequested file-list name: x", Unrequested}, {-1, "", Interrupted},
	} {
		if got := classify(c.code, c.said, nil); got != c.want {
			t.Errorf("%d %q: %s, want %s", c.code, c.said, got, c.want)
		}
	}
}

func FuzzOutput(f *testing.F) {
	f.Add(`recv|>f+++++++++|1|1|d/f`)
	f.Add(`rsync: [sender] link_stat "/d/\#012" (in pub) failed: No such file or directory (2)`)
	f.Fuzz(func(t *testing.T, line string) {
		if it, ok := parseItem(line); ok && newWanted(Content, []string{"d/f"}, false).allows(it) && !below(it.Path, "d") {
			t.Errorf("%q allows %q", line, it.Path)
		}
		if p, ok := pathError(line); ok && p.Kind == "" {
			t.Errorf("%q has no kind", line)
		}
		var s stats
		s.line(line)
	})
}
