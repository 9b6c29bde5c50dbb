package trigger_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/filelist"
)

// newLister is a master whose module keeps lists, in a folder of the module's name, as their clients want it.
func newLister(t *testing.T, lists ...string) *master {
	t.Helper()
	m := newMaster(t)
	tree := filepath.Join(filepath.Dir(m.tree), "m")
	check(t, os.Rename(m.tree, tree))
	m.tree = tree
	m.conf.Modules = []trigger.ModuleConfig{{Name: "m", Path: config.Path(tree), Lists: lists}}
	m.conf.Transport = nil
	m.validate()
	return m
}

// announce publishes words as ParseName takes them.
func announce(t *testing.T, h *trigger.Hub, words ...string) {
	t.Helper()
	var names []trigger.Name
	for _, w := range words {
		names = append(names, trigger.ParseName(w))
	}
	_, err := h.Publish(t.Context(), trigger.NewRequest("m", names))
	check(t, err)
}

// serial is that of the newest announcement.
func serial(t *testing.T, h *trigger.Hub) event.Serial {
	t.Helper()
	s, err := h.Status(t.Context())
	check(t, err)
	return s.Modules[0].Serial
}

// update does what a running hub does after an announcement.
func update(t *testing.T, h *trigger.Hub, want event.Serial, why string) {
	t.Helper()
	check(t, h.TakeIn(t.Context(), "m"))
	check(t, h.UpdateLists(t.Context(), "m"))
	if got := serial(t, h); got != want {
		t.Errorf("%s: serial %d, want %d", why, got, want)
	}
}

func (m *master) read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.tree, name))
	check(m.t, err)
	return string(b)
}

// Lists are written and announced when something else was announced, and for no other reason.
func TestListsAreWrittenAndAnnounced(t *testing.T) {
	m := newLister(t, filelist.Kinds()...)
	m.write("d/there")
	parts, closeParts := m.open()
	h := m.hubOf(parts)
	update(t, h, 0, "no manifest yet")
	check(t, h.BuildManifest(t.Context(), "m"))
	update(t, h, 1, "the first lists")
	if list := m.read("fullfiletimelist-m"); !strings.Contains(list, "\td/there\n") || strings.Contains(list, "fullfile") || strings.Contains(list, "RECENT") {
		t.Errorf("the list is %s", list)
	}
	if recent := m.read("RECENT-Z.yaml"); !strings.Contains(recent, `path: "d/there"`) || strings.Contains(recent, "fullfile") || strings.Count(recent, "RECENT") != 1 {
		t.Errorf("RECENT-Z is %s", recent)
	}
	for i := range 3 {
		update(t, h, 1, fmt.Sprint("nothing new, ", i))
	}
	m.write("d/new")
	announce(t, h, "d/new")
	update(t, h, 3, "something new")
	update(t, h, 3, "nothing since")
	if list, recent := m.read("fullfilelist"), m.read("RECENT-1h.yaml"); !strings.Contains(list, "./d/new\n") || !strings.Contains(recent, `path: "d/new"`) {
		t.Errorf("the lists are %s and %s", list, recent)
	}
	check(t, os.Remove(filepath.Join(m.tree, "d/new")))
	announce(t, h, "-d/new")
	update(t, h, 5, "something gone")
	if list, recent := m.read("fullfilelist"), m.read("RECENT-1h.yaml"); strings.Contains(list, "./d/new\n") || !strings.Contains(recent, "path: \"d/new\"\n    type: delete\n") {
		t.Errorf("the lists are %s and %s", list, recent)
	}
	closeParts()

	// Another process remembers nothing, and finds nothing to do; what somebody did to the lists, or a crash left undone, it mends.
	parts, closeParts = m.open()
	h = m.hubOf(parts)
	update(t, h, 5, "after a restart")
	closeParts()
	check(t, os.Remove(filepath.Join(m.tree, "fullfilelist")))
	now := time.Now()
	check(t, os.Chtimes(filepath.Join(m.tree, "RECENT-Z.yaml"), now, now))
	parts, _ = m.open()
	h = m.hubOf(parts)
	update(t, h, 6, "a list was removed, another touched")
	if !strings.Contains(m.read("fullfilelist"), "./d/there\n") {
		t.Error("the list that was removed was not made again")
	}
	update(t, h, 6, "and all is told")
}

// An announcement that comes while lists are written is in the next.
func TestListsAfterAnAnnouncementMeanwhile(t *testing.T) {
	m := newLister(t, filelist.Fullfiletimelist)
	m.write("a")
	h := m.hub()
	check(t, h.BuildManifest(t.Context(), "m"))
	update(t, h, 1, "the first lists")
	m.write("b", "c")
	announce(t, h, "b")
	check(t, h.TakeIn(t.Context(), "m"))
	announce(t, h, "c")
	check(t, h.UpdateLists(t.Context(), "m")) // those of serial 2, announced as serial 4
	if strings.Contains(m.read("fullfilelist"), "./c\n") {
		t.Error("c is listed already")
	}
	update(t, h, 5, "the later one")
	if !strings.Contains(m.read("fullfilelist"), "./c\n") {
		t.Error("c is not listed")
	}
	// A manifest that is built anew at the same serial may tell other things.
	m.write("unannounced")
	check(t, h.BuildManifest(t.Context(), "m"))
	update(t, h, 6, "a new manifest")
	if !strings.Contains(m.read("fullfilelist"), "./unannounced\n") {
		t.Error("what the new manifest tells is not listed")
	}
}

func TestListsThatCannotBeWritten(t *testing.T) {
	m := newLister(t, filelist.Fullfiletimelist)
	m.write("a")
	h := m.hub()
	check(t, h.BuildManifest(t.Context(), "m"))
	check(t, os.Mkdir(filepath.Join(m.tree, "fullfilelist"), 0o755)) // in the way
	err := h.UpdateLists(t.Context(), "m")
	if err == nil || !strings.Contains(err.Error(), "lists fullfiletimelist of m: ") || serial(t, h) != 0 {
		t.Errorf("got %v at serial %d", err, serial(t, h))
	}
	check(t, os.Remove(filepath.Join(m.tree, "fullfilelist")))
	update(t, h, 1, "out of the way")
}

// A hub that runs keeps the lists by itself.
func TestHubKeepsLists(t *testing.T) {
	m := newLister(t, filelist.Kinds()...)
	m.conf.Modules[0].ListsEvery = config.Duration{Duration: time.Millisecond}
	h, _ := m.start()
	m.write("new")
	announce(t, h, "new")
	testenv.WaitFor(t, bound, func() error {
		b, err := os.ReadFile(filepath.Join(m.tree, "fullfilelist"))
		if err == nil && !strings.Contains(string(b), "./new\n") {
			err = fmt.Errorf("the list is %s", b)
		}
		return err
	})
}

// served is an rsync daemon with the folder that holds the tree of m as its module top.
func (m *master) served() *testenv.Rsyncd {
	m.t.Helper()
	return testenv.StartRsyncd(m.t, testenv.RsyncdOptions{}, testenv.Module{Name: "top", Path: filepath.Dir(m.tree)}, testenv.Module{Name: "m", Path: m.tree})
}

// client is the path of another program in the environment; the test is left out without it, since that is nobody's package.
func client(t *testing.T, variable, what string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		testenv.Unable(t, variable+" does not name "+what)
	}
	return path
}

// The tree of the test of other clients, and how it goes on. Each step is announced.
func (m *master) grow(h *trigger.Hub, step int) {
	m.t.Helper()
	switch step {
	case 0:
		m.write("a", "d/b", "d/sub/c", "repo/repodata/repomd.xml", "with space", "odd[name]")
		check(m.t, os.Symlink("b", filepath.Join(m.tree, "d/link")))
		check(m.t, h.BuildManifest(m.t.Context(), "m"))
	case 1:
		m.write("new", "d/sub/also new")
		check(m.t, os.WriteFile(filepath.Join(m.tree, "a"), []byte("changed"), 0o644))
		announce(m.t, h, "new", "d/sub/also new", "a")
	case 2:
		check(m.t, os.RemoveAll(filepath.Join(m.tree, "d/sub")))
		check(m.t, os.Rename(filepath.Join(m.tree, "new"), filepath.Join(m.tree, "renamed")))
		announce(m.t, h, "-d/sub", "-new", "renamed")
	}
	check(m.t, h.TakeIn(m.t.Context(), "m"))
	check(m.t, h.UpdateLists(m.t.Context(), "m"))
}

// differs is what a client has otherwise than the tree, but for its own files and the times of folders and links: what changes in a folder is announced,
// and not that its time changed with it; rsync keeps no times of links with the options of some clients.
func (m *master) differs(dest string) (all []string) {
	m.t.Helper()
	for _, line := range testenv.Diff(m.t, m.tree, dest, event.ExportDir) {
		info, err := os.Lstat(filepath.Join(m.tree, strings.Trim(strings.SplitN(line, ": ", 2)[0], `"`)))
		if err == nil && !info.Mode().IsRegular() && strings.Contains(line, ": time ") || strings.Contains(line, "RECENT") {
			continue
		}
		all = append(all, line)
	}
	return all
}

// quick-fedora-mirror follows the lists: MIRRORBUS_TEST_QFM names the program. It needs zsh.
func TestQuickFedoraMirror(t *testing.T) {
	program := client(t, "MIRRORBUS_TEST_QFM", "quick-fedora-mirror")
	zsh := testenv.Need(t, "zsh", "rsync")
	m := newLister(t, filelist.Fullfiletimelist)
	h := m.hub()
	daemon, dir := m.served(), t.TempDir()
	dest := filepath.Join(dir, "dest")
	check(t, os.Mkdir(dest, 0o755))
	conf := filepath.Join(dir, "conf")
	check(t, os.WriteFile(conf, []byte(fmt.Sprintf("DESTD=%s\nTIMEFILE=%s/time\nREMOTE=rsync://127.0.0.1:%d\nMASTERMODULE=top\nMODULES=(m)\nMODULEMAPPING=(m m)\nVERBOSE=7\n"+
		"EXTRAFILES=(fullfilelist)\nFILTEREXP=\n", dest, dir, daemon.Port)), 0o644))
	for step := range 3 {
		m.grow(h, step)
		c := exec.Command(zsh, program, "-c", conf)
		c.Dir = dir
		out, err := c.CombinedOutput()
		diff := m.differs(filepath.Join(dest, "m"))
		if err != nil || len(diff) > 0 {
			t.Errorf("step %d: %v\n%s\n%s", step, err, strings.Join(diff, "\n"), out)
		}
	}
}

// The list is that of create-filelist, which stands beside quick-fedora-mirror, but for times.
func TestListsAgreeWithCreateFilelist(t *testing.T) {
	program := filepath.Join(filepath.Dir(client(t, "MIRRORBUS_TEST_QFM", "quick-fedora-mirror")), "create-filelist")
	python := testenv.Need(t, "python3")
	m := newLister(t, filelist.Fullfiletimelist)
	m.write("hidden/x", "group/x", "group/sub/y", "private", "embargoed")
	for name, mode := range map[string]os.FileMode{"hidden": 0o700, "group": 0o750, "private": 0o600, "embargoed": 0o640} {
		check(t, os.Chmod(filepath.Join(m.tree, name), mode))
	}
	m.grow(m.hub(), 0)
	dir := t.TempDir()
	out, err := exec.Command(python, program, "-c", "-S", event.ExportDir, "-S", "fullfilelist", "-S", "fullfiletimelist-m", "-d", m.tree,
		"-t", dir+"/times", "-f", dir+"/plain").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := func(file string, from int) []string {
		b, err := os.ReadFile(file)
		check(t, err)
		var all []string
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Split(line, "\t"); len(f) == 4 {
				line = strings.Join(f[from:], "\t")
				if strings.HasPrefix(f[1], "d") {
					line = f[1] + "\t" + f[3] // the size of a folder is the file system's affair
				}
			}
			all = append(all, line)
		}
		slices.Sort(all)
		return all
	}
	for theirs, ours := range map[string]string{dir + "/times": "fullfiletimelist-m", dir + "/plain": "fullfilelist"} {
		if a, b := lines(theirs, 1), lines(filepath.Join(m.tree, ours), 1); !slices.Equal(a, b) {
			t.Errorf("%s:\n%s\nours:\n%s", ours, strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
}

// rrr-client follows the RECENT files: MIRRORBUS_TEST_RRR names the folder with its lib. It copies no modes, and of folders only those of files.
func TestRecentMirror(t *testing.T) {
	lib := filepath.Join(client(t, "MIRRORBUS_TEST_RRR", "the folder of File::Rsync::Mirror::Recent"), "lib")
	perl := testenv.Need(t, "perl", "rsync")
	m := newLister(t, filelist.Recent)
	h := m.hub()
	daemon, dest := m.served(), t.TempDir()
	script := `use File::Rsync::Mirror::Recent; File::Rsync::Mirror::Recent->new(ignore_link_stat_errors => 1, localroot => $ARGV[0], remote => $ARGV[1],
		max_files_per_connection => 20000, rsync_options => {links => 1, times => 1, checksum => 0}, verbose => 0)->rmirror(loop => 0)`
	for step := range 3 {
		m.grow(h, step)
		out, err := exec.Command(perl, "-I", lib, "-e", script, dest, daemon.URL("m", "RECENT.recent")).CombinedOutput()
		diff := m.differs(dest)
		if err != nil || len(diff) > 0 {
			t.Errorf("step %d: %v\n%s\n%s", step, err, strings.Join(diff, "\n"), out)
		}
	}
}
