package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// A volume is a kind of file system that a tree may lie on.
type volume struct {
	name    string
	mount   func(r *rig)
	backend string // that is chosen for it
	reason  string // and why
	more    func(r *rig)
}

var volumes = []volume{
	{name: "tmpfs", mount: func(r *rig) { r.mount("tmpfs", r.root, "tmpfs", "size=8m") }, backend: Fanotify, reason: "the whole file system is marked"},
	{name: "xfs", mount: func(r *rig) { r.mountImage("xfs", 320<<20, "mkfs.xfs", "-q") }, backend: Fanotify, reason: "the whole file system is marked"},
	{name: "btrfs", mount: func(r *rig) { r.mountImage("btrfs", 256<<20, "mkfs.btrfs", "-q") }, backend: Fanotify, reason: "the whole file system is marked"},
	{name: "a subvolume of btrfs, and the rest of it is mounted too", mount: func(r *rig) { r.mountSubvolume(true) }, backend: Fanotify, reason: "the whole file system is marked"},
	{name: "a subvolume of btrfs", mount: func(r *rig) { r.mountSubvolume(false) }, backend: Inotify, reason: "a subvolume cannot be marked; mount the top level"},
	{name: "ramfs", mount: func(r *rig) { r.mount("ramfs", r.root, "ramfs", "") }, backend: Inotify, reason: "this file system has no"},
	{name: "overlay", mount: (*rig).mountOverlay, backend: Inotify, reason: "this file system has no file handles", more: (*rig).changeLower},
	{name: "fuse", mount: (*rig).mountFuse, backend: Scanning, reason: "tells nothing of what changes below it", more: (*rig).changeBelow},
}

// On each kind of file system that this kernel knows a tree is watched by what works there, which is said with the reason, and nothing is missed.
func TestFileSystems(t *testing.T) {
	testenv.NeedRoot(t)
	for _, v := range volumes {
		t.Run(strings.ReplaceAll(v.name, " ", "-"), func(t *testing.T) {
			r := newRig(t)
			v.mount(r)
			r.write("pool/a", "a")
			r.write("pool/sub/b", "b")
			r.watch(Options{PollEvery: 100 * time.Millisecond})
			if s := r.w.Status(); s.Backend != v.backend || !strings.Contains(s.Reason, v.reason) {
				t.Errorf("by %s (%s), want %s (%s)", s.Backend, s.Reason, v.backend, v.reason)
			}
			if said := r.log.String(); !strings.Contains(said, "msg=watching") || !strings.Contains(said, "backend="+v.backend) {
				t.Errorf("it says %s", said)
			}
			r.changes()
			if v.more != nil {
				v.more(r)
			}
			if s := r.w.Status(); s.Lost != 0 || s.Trouble != "" || s.Backend != v.backend {
				t.Errorf("in the end %+v", s)
			}
		})
	}
}

// changes are some of each kind. After each, what was announced is what is there.
func (r *rig) changes() {
	r.Helper()
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"a new file", func() { r.write("pool/new", "new") }},
		{"a file written again", func() { r.write("pool/a", "longer") }},
		{"modes", func() { r.must(os.Chmod(r.path("pool/a"), 0o600)); r.must(os.Chmod(r.path("pool/sub"), 0o700)) }},
		{"a file replaced by renaming", func() { r.write("pool/.tmp", "replaced"); r.rename("pool/.tmp", "pool/a") }},
		{"another name of a file", func() { r.must(os.Link(r.path("pool/a"), r.path("pool/hard"))) }},
		{"many directories at once", func() { r.fill("burst", 50, 3) }},
		{"a directory renamed, and filled", func() { r.rename("burst", "made"); r.write("made/3/new", "new") }},
		{"names of any bytes", func() { r.write("odd/new\nline\xff", "x") }},
		{"removed", func() { r.remove("pool/hard"); r.remove("made") }},
		{"removed and made again", func() { r.remove("odd"); r.write("odd/a/b", "b") }},
	} {
		c.change()
		r.sync()
		if err := r.m.differs(everyName); err != nil {
			r.Errorf("%s:\n%v", c.name, err)
		}
	}
}

// mount mounts for the time of the test. It skips the test where the kernel does not know the kind, or this container may not mount.
func (r *rig) mount(source, dir, kind, data string) {
	r.Helper()
	switch err := syscall.Mount(source, dir, kind, 0, data); {
	case errors.Is(err, syscall.ENODEV):
		testenv.Unable(r, "this kernel does not know "+kind)
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		testenv.Unable(r, "may not mount "+kind)
	case err != nil:
		r.Fatalf("mount %s: %v", kind, err)
	}
	r.unmountLater(dir)
}

func (r *rig) unmountLater(dir string) {
	r.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) }) //nolint:errcheck // the test may have done it
}

// mountImage makes a file system in a file, and mounts it where the tree is.
func (r *rig) mountImage(kind string, size int64, mkfs ...string) {
	r.Helper()
	testenv.Need(r, "mount")
	program := testenv.Need(r, mkfs[0])
	image := filepath.Join(r.TempDir(), kind)
	r.must(os.WriteFile(image, nil, 0o600))
	r.must(os.Truncate(image, size))
	if out, err := exec.Command(program, append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		r.Fatalf("%s: %v: %s", mkfs[0], err, out)
	}
	out, err := exec.Command("mount", "-t", kind, "-o", "loop", image, r.root).CombinedOutput()
	for _, unable := range []string{"unknown filesystem type", "failed to setup loop device", "permission denied"} {
		if err != nil && strings.Contains(string(out), unable) {
			testenv.Unable(r, "cannot mount "+kind+": "+strings.TrimSpace(string(out)))
		}
	}
	if err != nil {
		r.Fatalf("mount %s: %v: %s", kind, err, out)
	}
	r.unmountLater(r.root)
}

// mountSubvolume mounts a subvolume of a btrfs where the tree is, and what is above it elsewhere.
func (r *rig) mountSubvolume(top bool) {
	r.Helper()
	r.mountImage("btrfs", 256<<20, "mkfs.btrfs", "-q")
	if out, err := exec.Command(testenv.Need(r, "btrfs"), "subvolume", "create", r.path("tree")).CombinedOutput(); err != nil {
		r.Fatalf("btrfs subvolume create: %v: %s", err, out)
	}
	device, above := r.mounted().source, r.TempDir()
	r.mount(device, above, "btrfs", "subvolid=5")
	r.must(syscall.Unmount(r.root, 0))
	r.mount(device, r.root, "btrfs", "subvol=tree")
	if !top {
		r.must(syscall.Unmount(above, 0))
	}
}

// mounted is what is mounted where the tree is.
func (r *rig) mounted() mount {
	r.Helper()
	list, err := openMounts()
	r.must(err)
	defer list.f.Close() //nolint:errcheck // only read
	all, err := list.read()
	r.must(err)
	return covering(all, r.root)
}

// What is made in a directory after it was opened, and before it is watched, is found. btrfs does not list that.
func TestMadeBetweenOpeningAndWatching(t *testing.T) {
	testenv.NeedRoot(t)
	r := newRig(t)
	r.mountImage("btrfs", 256<<20, "mkfs.btrfs", "-q")
	r.write("d/before", "x")
	at, err := openPlace(r.root)
	r.must(err)
	defer at.close() //nolint:errcheck // only read
	i, err := openInotify(at, nil, 0)
	r.must(err)
	defer i.close() //nolint:errcheck // as above
	f, st, err := openDir(-1, r.path("d"), r.path("d"))
	r.must(err)
	defer f.Close() //nolint:errcheck // only read
	r.write("d/between", "x")
	n, err := i.watch(f, st.Ino)
	r.must(err)
	n.link(i.top, "d")
	found := names{}
	r.must(i.fill(f, n, found))
	if !found["d/before"] || !found["d/between"] {
		t.Errorf("found %v", found)
	}
}

// names are what was found.
type names map[string]bool

func (n names) found(path string, _ bool) { n[path] = true }
func (names) arrived(string)              {}

// mountOverlay mounts what is in a container: a folder that may be written over one that stays as it is.
func (r *rig) mountOverlay() {
	r.Helper()
	layers := r.TempDir()
	for _, dir := range []string{"lower/low/sub", "upper", "work"} {
		r.must(os.MkdirAll(filepath.Join(layers, dir), 0o755))
	}
	for _, name := range []string{"lower/low/a", "lower/low/b", "lower/low/sub/c"} {
		r.must(os.WriteFile(filepath.Join(layers, name), []byte(name), 0o644))
	}
	r.mount("overlay", r.root, "overlay", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers))
}

// changeLower changes what lies in the folder below: it is copied up first.
func (r *rig) changeLower() {
	r.Helper()
	for _, change := range []func(){
		func() { r.appendTo("low/a", "more") },
		func() { r.must(os.Chmod(r.path("low/sub"), 0o700)) },
		func() { r.write("low/sub/new", "new") },
		func() { r.must(os.Chmod(r.path("low/b"), 0o600)) },
		func() { r.rename("low/b", "low/sub/b") },
		func() { r.remove("low/sub/c") },
		func() { r.remove("low"); r.write("low/other", "other") },
	} {
		change()
		r.sync()
		r.check()
	}
}

// mountFuse mounts a folder by a program.
func (r *rig) mountFuse() {
	r.Helper()
	program := testenv.Need(r, "bindfs")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		testenv.Unable(r, "no /dev/fuse")
	}
	c := exec.Command(program, "-f", "-o", "attr_timeout=0,entry_timeout=0,hard_remove", r.outside, r.root)
	var said strings.Builder
	c.Stdout, c.Stderr = &said, &said
	r.must(c.Start())
	ended := make(chan struct{})
	go func() {
		c.Wait() //nolint:errcheck // it ends when it is unmounted
		close(ended)
	}()
	r.Cleanup(func() {
		c.Process.Kill() //nolint:errcheck // it may have ended
		<-ended
	})
	r.unmountLater(r.root)
	testenv.WaitFor(r, 10*time.Second, func() error {
		select {
		case <-ended:
			testenv.Unable(r, "cannot mount by bindfs: "+said.String())
		default:
		}
		if kind := r.mounted().kind; !strings.HasPrefix(kind, "fuse") {
			return fmt.Errorf("mounted is %s", kind)
		}
		return nil
	})
}

// changeBelow changes the folder that is mounted, which no event tells of.
func (r *rig) changeBelow() {
	r.Helper()
	r.must(os.WriteFile(filepath.Join(r.outside, "below"), []byte("x"), 0o644))
	testenv.WaitFor(r, 10*time.Second, func() error { return r.m.differs(everyName) })
}

// File systems that others change too are scanned, even where they could be marked or watched.
func TestFarAway(t *testing.T) {
	for kind, far := range map[string]bool{
		"nfs": true, "nfs4": true, "cifs": true, "ceph": true, "9p": true, "virtiofs": true, "gfs2": true, "fuse": true, "fuse.sshfs": true, "fuse.rclone": true,
		"ext4": false, "xfs": false, "btrfs": false, "tmpfs": false, "zfs": false, "overlay": false, "fuseblk": false,
	} {
		at, err := openPlace(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		at.mount.kind = kind
		w := New(Options{Module: "fedora", Root: at.root}, nil, slog.New(slog.DiscardHandler))
		b, err := w.choose(at)
		if err != nil {
			t.Fatal(err)
		}
		if (b.name == Scanning) != far || far && !strings.Contains(b.reason, kind+" tells nothing of what ") {
			t.Errorf("%s: by %s: %s", kind, b.name, b.reason)
		}
		if err := errors.Join(b.close(), at.close()); err != nil {
			t.Error(err)
		}
	}
}

// Who asks for fanotify and may not have it is told what it takes.
func TestFanotifyThatWasAskedFor(t *testing.T) {
	r := newRig(t)
	asNobody(t, r.root)
	err := New(Options{Module: "fedora", Root: r.root, Backend: Fanotify}, r.m, slog.New(slog.DiscardHandler)).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "CAP_SYS_ADMIN") || fault.StatusOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
		t.Errorf("%v (status %d, hint %q)", err, fault.StatusOf(err), fault.HintOf(err))
	}
}

// Where watches end, at the start or later, the tree is scanned, with a warning that names the limit.
func TestNoWatchesLeft(t *testing.T) {
	for name, most := range map[string]int{"at the start": 1, "later": 3} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			r := newRig(t)
			r.mkdir("a")
			asNobody(t, r.root, r.path("a")) // who cannot mark
			r.watch(Options{maxWatches: most, PollEvery: 50 * time.Millisecond})
			for _, dir := range []string{"b", "c", "d"} {
				r.write(dir+"/x", dir)
			}
			testenv.WaitFor(t, 10*time.Second, func() error {
				if s := r.w.Status(); s.Backend != Scanning {
					return fmt.Errorf("status %+v", s)
				}
				return r.m.differs(everyName)
			})
			r.write("d/x", "changed")
			r.sync()
			r.check()
			if said := r.log.String(); strings.Count(said, "level=WARN") != 1 || !strings.Contains(said, "the tree is scanned") || !strings.Contains(said, "fs.inotify.max_user_watches") {
				t.Errorf("it says %s", said)
			}
		})
	}
}
