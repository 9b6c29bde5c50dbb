package doctor_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/doctor"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// finds runs one check.
func finds(t *testing.T, c doctor.Check, level doctor.Level, detail string) doctor.Finding {
	t.Helper()
	f := c.Run(t.Context())
	if f.Level != level || !strings.Contains(f.Detail, detail) {
		t.Errorf("found %+v, want %s with %q", f, level, detail)
	}
	if level != doctor.OK && f.Remedy == "" {
		t.Errorf("no remedy with %+v", f)
	}
	return f
}

// keys makes a key file and a trust file that lets it sign reports as one.
func keys(t *testing.T) (key, trust string) {
	t.Helper()
	dir := t.TempDir()
	_, private, err := ed25519.GenerateKey(nil)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	check(t, err)
	public, err := ssh.NewPublicKey(private.Public())
	check(t, err)
	key, trust = filepath.Join(dir, "key"), filepath.Join(dir, "trust")
	check(t, os.WriteFile(key, pem.EncodeToMemory(block), 0o600))
	check(t, os.WriteFile(trust, fmt.Appendf(nil, "one namespaces=\"report@mirrorbus\" %s", ssh.MarshalAuthorizedKey(public)), 0o600))
	return key, trust
}

func TestKey(t *testing.T) {
	key, trust := keys(t)
	finds(t, doctor.Key(key, "", "", "", "one"), doctor.OK, "signs")
	finds(t, doctor.Key(key, "", trust, "", "one", event.Reply), doctor.OK, trust+" lets it")
	finds(t, doctor.Key(key, "", trust, "", "one", event.Reply, event.HeadIs), doctor.Warn, "does not let it sign a head as one")
	finds(t, doctor.Key(key, "", trust, "", "two", event.Reply), doctor.Warn, "as two")
	finds(t, doctor.Key(key+"x", "", "", "", "one"), doctor.Bad, "no such file")
	finds(t, doctor.Key(key, "", trust+"x", "", "one", event.Reply), doctor.Bad, "no such file")
	check(t, os.Chmod(key, 0o644))
	finds(t, doctor.Key(key, "", "", "", "one"), doctor.Bad, "0644")
}

func TestTrust(t *testing.T) {
	_, trust := keys(t)
	finds(t, doctor.Trust(trust, ""), doctor.OK, "1 entries")
	finds(t, doctor.Trust(trust+"x", ""), doctor.Bad, "no such file")
	finds(t, doctor.Trust(trust, trust+"x"), doctor.Bad, "no such file")
	good, err := os.ReadFile(trust)
	check(t, err)
	check(t, os.WriteFile(trust, append(good, "two nonsense\nthree\n"...), 0o600))
	finds(t, doctor.Trust(trust, ""), doctor.Warn, "2 lines in all")
	check(t, os.Chmod(trust, 0o666))
	finds(t, doctor.Trust(trust, ""), doctor.Bad, trust)
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	finds(t, doctor.Folder("tree", dir, true), doctor.OK, dir+", ")
	finds(t, doctor.Folder("tree", dir+"/none", true), doctor.Bad, "no such file")
	file := filepath.Join(dir, "file")
	check(t, os.WriteFile(file, nil, 0o600))
	finds(t, doctor.Folder("tree", file, false), doctor.Bad, "is not a directory")
	finds(t, doctor.Folder("tree", "/proc/self/fdinfo", false), doctor.OK, "/proc/self/fdinfo") // where nothing can be written, and none need
}

// For root a folder that cannot be written is one of a read-only file system, which the machine has or has not.
func TestFolderThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o500))
	for _, try := range []string{dir, "/proc/sys", "/sys"} {
		if unix.Access(try, unix.W_OK) != nil {
			finds(t, doctor.Folder("tree", try, true), doctor.Bad, "cannot be written")
			finds(t, doctor.Folder("tree", try, false), doctor.OK, try)
			return
		}
	}
	t.Skip("root, and no read-only file system at /proc/sys or /sys")
}

func TestDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close() //nolint:errcheck // the test is over
	finds(t, doctor.Dial("hub", l.Addr().String()), doctor.OK, "answers in")
	finds(t, doctor.Dial("hub", fmt.Sprint("127.0.0.1:", testenv.FreePort(t))), doctor.Bad, "refused")
	finds(t, doctor.Dial("hub", "no address"), doctor.Bad, "missing port")
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	finds(t, doctor.Socket("daemon", path), doctor.Warn, "no such file")
	l, err := net.Listen("unix", path)
	check(t, err)
	finds(t, doctor.Socket("daemon", path), doctor.OK, "answers on "+path)
	check(t, l.Close())
	finds(t, doctor.Socket("daemon", path), doctor.Warn, path)
}

func TestLinks(t *testing.T) {
	tree, other := t.TempDir(), t.TempDir()
	check(t, os.MkdirAll(filepath.Join(tree, "d", "e"), 0o755))
	check(t, os.WriteFile(filepath.Join(tree, "file"), nil, 0o600))
	check(t, os.Symlink("file", filepath.Join(tree, "to-a-file")))
	check(t, os.Symlink("nowhere", filepath.Join(tree, "dangling")))
	finds(t, doctor.Links(tree, nil), doctor.OK, "none")
	check(t, os.Symlink(other, filepath.Join(tree, "pool")))
	check(t, os.Symlink(other, filepath.Join(tree, "d", "pool")))
	finds(t, doctor.Links(tree, nil), doctor.Warn, "2 lead to directories: [pool d/pool]")
	finds(t, doctor.Links(tree, []string{"pool"}), doctor.Warn, "1 lead to directories: [d/pool]")
	finds(t, doctor.Links(tree, []string{"pool/", "/d/pool"}), doctor.OK, "none") // written as the configuration may have them
}

// A tree whose name looks like a pattern is looked into all the same.
func TestLinksOfAnOddTree(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "[a-")
	check(t, os.Mkdir(tree, 0o755))
	check(t, os.Symlink("/", filepath.Join(tree, "root")))
	finds(t, doctor.Links(tree, nil), doctor.Warn, "[root]")
	finds(t, doctor.Links(tree+"x", nil), doctor.Bad, "no such file")
}

func TestRun(t *testing.T) {
	said := func(level doctor.Level) doctor.Check {
		return doctor.Check{Name: string(level), Run: func(ctx context.Context) doctor.Finding {
			if at, ok := ctx.Deadline(); !ok || time.Until(at) > time.Minute {
				t.Error("a check may take for ever")
			}
			return doctor.Finding{Level: level}
		}}
	}
	for _, c := range []struct {
		checks []doctor.Check
		well   bool
	}{
		{nil, true},
		{[]doctor.Check{said(doctor.OK), said(doctor.Warn)}, true},
		{[]doctor.Check{said(doctor.Bad), said(doctor.OK)}, false},
	} {
		var shown, want []string
		well, err := doctor.Run(t.Context(), c.checks, func(f doctor.Finding) error { shown = append(shown, f.Check); return nil })
		for _, x := range c.checks {
			want = append(want, x.Name)
		}
		if well != c.well || err != nil || !slices.Equal(shown, want) {
			t.Errorf("%q: well %t, %v, shown %q", want, well, err, shown)
		}
	}
	full := errors.New("disk full")
	if _, err := doctor.Run(t.Context(), []doctor.Check{said(doctor.OK)}, func(doctor.Finding) error { return full }); !errors.Is(err, full) {
		t.Errorf("a finding that cannot be shown: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := doctor.Run(ctx, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	check(t, doctor.Print(&b, doctor.Finding{Check: "key", Level: doctor.OK, Detail: "signs"}))
	check(t, doctor.Print(&b, doctor.Finding{Check: "hub", Level: doctor.Warn, Detail: "is slow", Remedy: "wait"}))
	if want := "ok    key: signs\nwarn  hub: is slow\n      hint: wait\n"; b.String() != want {
		t.Errorf("printed %q, want %q", b.String(), want)
	}
}
