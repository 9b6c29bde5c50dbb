package rsync

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

func TestUpstreamsThatAreRefused(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		u    Upstream
		want string
	}{
		{Upstream{URL: ""}, "must be rsync://"},
		{Upstream{URL: "/srv/tree"}, "must be rsync://"},
		{Upstream{URL: "host:relative"}, "absolute folder"},
		{Upstream{URL: "-oProxyCommand=x:/srv"}, "must be rsync://"},
		{Upstream{URL: "-x:/srv"}, "dash"},
		{Upstream{URL: "host:/srv/*"}, "wildcards"},
		{Upstream{URL: "host:/srv/../etc"}, "clean"},
		{Upstream{URL: "host:/a b"}, "blanks"},
		{Upstream{URL: "rsync://host"}, "no module"},
		{Upstream{URL: "rsync:///module/"}, "no host"},
		{Upstream{URL: "rsync://-h/module/"}, "no host"},
		{Upstream{URL: `rsync://"/module/`}, "that a shell reads; write rsync://"},
		{Upstream{URL: "rsync://me$x@host/module/"}, "that a shell reads; write rsync://"},
		{Upstream{URL: "rsync://host/mod*/"}, "no module"},
		{Upstream{URL: "rsync://host/mod/../x"}, "clean"},
		{Upstream{URL: "rsync://host/mod/a/*"}, "wildcards"},
		{Upstream{URL: "rsync://me:hunter2@host/mod/"}, "password in the address"},
		{Upstream{URL: "rsync://me:hunter2@ho st/mod/"}, "not an address"},
		{Upstream{URL: "rsync://host/mod", Args: []string{"--delete"}}, `option "--delete" is not allowed`},
		{Upstream{URL: "rsync://host/mod", Args: []string{"--stop-after=1"}}, "not allowed"},
		{Upstream{URL: "rsync://host/mod", Args: []string{"--rsync-path=sh -c x"}}, "not allowed"},
		{Upstream{URL: "rsync://host/mod", PasswordFile: open}, "chmod 600"},
		{Upstream{URL: "rsync://host/mod", PasswordFile: "/nowhere/x"}, "password file"},
		{Upstream{URL: "host:/srv", Shell: []string{"ssh", "it's"}}, "quotes"},
		{Upstream{URL: "host:/srv", BWLimitKiB: -1}, "negative"},
	} {
		_, err := c.u.parse()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.u, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
}

func TestUpstreamsThatAreTaken(t *testing.T) {
	for address, want := range map[string]string{
		"rsync://host/mod":                    "rsync://host/mod/",
		"rsync://mirror+eu,a=b@host:8730/mod": "rsync://mirror+eu,a=b@host:8730/mod/",
		"rsync://[::1]:873/mod/":              "rsync://[::1]:873/mod/",
		"me@host:/srv":                        "me@host:/srv/",
	} {
		if s, err := (Upstream{URL: address}).parse(); err != nil || s.url != want {
			t.Errorf("%q becomes %q, %v; want %q", address, s.url, err, want)
		}
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	base := t.TempDir()
	dest := filepath.Join(base, "dest")
	testenv.WriteTree(t, base, testenv.Dir("dest", 0o755), testenv.File("file", "x"))
	good := Config{Upstream: Upstream{URL: "rsync://host/mod/"}, Dest: dest, LockFile: filepath.Join(base, "lock"), Features: Features{Binary: "/bin/true"}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"not probed":        func(c *Config) { c.Features = Features{} },
		"make it, or mount": func(c *Config) { c.Dest = filepath.Join(base, "none") },
		"not a directory":   func(c *Config) { c.Dest = filepath.Join(base, "file") },
		"absolute path":     func(c *Config) { c.Dest = "relative" },
		"/ cannot":          func(c *Config) { c.Dest = "/" },
		"lock file":         func(c *Config) { c.LockFile = filepath.Join(dest, "lock") },
		"outside of":        func(c *Config) { c.TempDir = filepath.Join(dest, "tmp") },
		"file system":       func(c *Config) { c.TempDir = "/dev/shm/" + TempPrefix + "-test" },
		"chmod":             func(c *Config) { c.Chmod = "u+s --delete" },
		"blanks and wild":   func(c *Config) { c.Links = []Link{{Path: "a*"}} },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := os.RemoveAll("/dev/shm/" + TempPrefix + "-test"); err != nil {
		t.Error(err)
	}
}

func TestJobsThatAreRefusedBeforeAnythingStarts(t *testing.T) {
	w := newWorld(t)
	w.upstream(testenv.File("f", "x"))
	long := strings.Repeat("a", MaxComponent+1)
	for _, c := range []struct {
		job  Job
		want string
	}{
		{Job{Mode: Content, Paths: []string{"f", "."}}, "not clean"},
		{Job{Mode: Content, Paths: []string{".."}}, "not clean"},
		{Job{Mode: Content, Paths: []string{"d/../f"}}, "not clean"},
		{Job{Mode: Content, Paths: []string{"d/./f"}}, "not clean"},
		{Job{Mode: Content, Paths: []string{"d/"}}, "empty component"},
		{Job{Mode: Content, Paths: []string{""}}, "path is empty"},
		{Job{Mode: Content, Paths: []string{"/etc/passwd"}}, "absolute"},
		{Job{Mode: Content, Paths: []string{"a\x00b"}}, "NUL"},
		{Job{Mode: Content, Paths: []string{long}}, "at most 255"},
		{Job{Mode: Content, Paths: []string{strings.Repeat("a/", 2500) + "b"}}, "at most 4000"},
		{Job{Mode: Content}, "no paths"},
		{Job{Mode: Delete}, "no paths"},
		{Job{Mode: Full, Paths: []string{"f"}}, "takes no paths"},
		{Job{Mode: "sideways", Paths: []string{"f"}}, "unknown mode"},
		{Job{Mode: ask, Paths: []string{"f"}}, "unknown mode"},
		{Job{Mode: Content, Paths: []string{"f"}, Filters: []string{"- x"}}, "takes no filters"},
		{Job{Mode: Level, Paths: []string{"f"}, Filters: []string{". /etc/passwd"}}, "filter"},
		{Job{Mode: Fetch, Paths: []string{"f"}}, "absolute folder"},
		{Job{Mode: Content, Paths: []string{"f"}, Into: "/tmp"}, "absolute folder"},
		{Job{Mode: Content, Paths: []string{"f"}, MaxDelete: -2}, "negative"},
	} {
		res, err := w.runner().Run(t.Context(), c.job)
		e := w.failure(err, BadJob)
		if !strings.Contains(e.Error(), c.want) || res.Runs != 0 || e.Retry() != Human {
			t.Errorf("%+v: %v after %d runs, want %q", c.job, e, res.Runs, c.want)
		}
	}
}

func TestChunksAreSortedAndCut(t *testing.T) {
	got := Chunks([]string{"b", "a/c", "a", "b", "a b"}, 2)
	if want := [][]string{{"a", "a b"}, {"a/c", "b"}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCommandsShowWhatWouldRun(t *testing.T) {
	w := newWorld(t)
	cmds, refused, err := w.runner().Commands(Job{Mode: Delete, Paths: []string{"b", "a/x", "a"}, MaxDelete: 3})
	if err != nil || len(refused) > 0 || len(cmds) != 1 {
		t.Fatalf("%v %v %v", cmds, refused, err)
	}
	line := strings.Join(cmds[0].Argv, " ")
	if !slices.Equal(cmds[0].List, []string{"a", "b"}) || !strings.Contains(line, "--max-delete=3") || !strings.HasSuffix(line, w.dest+"/") {
		t.Errorf("%s < %q", line, cmds[0].List)
	}
}

func TestAFolderOfAModuleAsUpstream(t *testing.T) {
	w := newWorld(t, func(m *testenv.Module) { m.Extra = []string{"use chroot = no"} })
	testenv.WriteTree(t, w.up, testenv.File("pub/linux/d/f", "x"), testenv.File("pub/linux/d/g", "x"), testenv.File("pub/secret", "x"))
	w.cfg.Upstream.URL = w.daemon.URL("pub", "pub/linux/")
	w.up = filepath.Join(w.up, "pub/linux")
	w.run(Job{Mode: Content, Paths: []string{"d/f"}})
	w.same("d/g")
	_, err := w.runner().Run(t.Context(), Job{Mode: Content, Paths: []string{"d/none"}})
	w.onePath(w.failure(err, Partial), "d/none", NotFound, false)
	w.mirror(testenv.File("d/gone", "x"))
	w.run(Job{Mode: Delete, Paths: []string{"d/gone"}, MaxDelete: 1})
	w.run(Job{Mode: Recursive, Paths: []string{"d"}})
	w.same()
	w.mirror(testenv.File("extra", "x"))
	w.run(Job{Mode: Full, MaxDelete: Unlimited})
	w.same()
}

func TestOverSSH(t *testing.T) {
	w := newWorld(t)
	s := testenv.StartSSHD(t, "")
	w.cfg.Upstream = Upstream{URL: "127.0.0.1:" + w.up, Shell: s.Shell()}
	w.upstream(testenv.File("d/f", "x"), testenv.File("nl\n", "x"), testenv.File(`a\[b`, "x"), testenv.File("#x", "x"))
	w.mirror(testenv.File("d/gone", "x"))
	w.run(Job{Mode: Content, Paths: []string{"d/f", "nl\n", `a\[b`, "#x"}})
	w.run(Job{Mode: Delete, Paths: []string{"d/gone"}, MaxDelete: 1})
	w.same()
	e := w.fails(Job{Mode: Content, Paths: []string{"d/none", "d/f"}}, Partial)
	w.onePath(e, "d/none", NotFound, false)

	w.cfg.Upstream.Shell = append(s.Shell(), "-oUserKnownHostsFile=/dev/null")
	w.cfg.Upstream.Shell = slices.DeleteFunc(w.cfg.Upstream.Shell, func(a string) bool { return a == "-oUserKnownHostsFile="+s.KnownHosts })
	w.fails(Job{Mode: Content, Paths: []string{"d/f"}}, Auth)
	s.Kill()
	w.cfg.Upstream.Shell = s.Shell()
	if e := w.fails(Job{Mode: Content, Paths: []string{"d/f"}}, Unavailable); e.Retry() != Backoff {
		t.Errorf("retry %s", e.Retry())
	}
}

func TestADaemonBehindSSH(t *testing.T) {
	w := newWorld(t)
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("use chroot = no\n"+asRoot()+"[pub]\npath = "+w.up+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testenv.StartSSHD(t, testenv.Need(t, "rsync")+" --server --daemon --config="+conf+" .")
	w.cfg.Upstream = Upstream{URL: "rsync://127.0.0.1/pub/", Shell: s.Shell(), ConnectTimeout: time.Second}
	w.upstream(testenv.File("d/f", "x"))
	w.run(Job{Mode: Content, Paths: []string{"d/f"}})
	w.same()
}
