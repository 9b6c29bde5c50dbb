package trigger_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// scan scans, and returns what it found in the end.
func scan(t *testing.T, h *trigger.Hub, r trigger.ScanRequest) trigger.Scanned {
	t.Helper()
	last, err := scanned(t, h, r)
	check(t, err)
	if !last.Done {
		t.Errorf("the last word is %+v", last)
	}
	return last
}

func scanned(t *testing.T, h *trigger.Hub, r trigger.ScanRequest) (last trigger.Scanned, err error) {
	t.Helper()
	r.Module = "m"
	err = h.Scan(t.Context(), r, func(s trigger.Scanned) error { last = s; return nil })
	return last, err
}

// announced is the newest announcement, each record as op and path.
func (m *master) announced(parts *trigger.Parts) string {
	m.t.Helper()
	a, err := parts.Journal.Latest(m.t.Context(), "m")
	check(m.t, err)
	if a.Set == nil {
		return "anything"
	}
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	check(m.t, err)
	var all []string
	for _, r := range set {
		all = append(all, fmt.Sprintf("%c%s", r.Op, r.Path))
	}
	return strings.Join(all, " ")
}

// running is a hub with its parts.
func (m *master) running() (*trigger.Hub, *trigger.Parts) {
	m.t.Helper()
	m.write("there")
	parts, _ := m.open()
	h := m.hubOf(parts)
	run(m.t, h.Run)
	testenv.WaitFor(m.t, bound, func() error {
		s, err := h.Status(m.t.Context())
		if err == nil && (s.Modules[0].Entries == 0 || s.Modules[0].Building != "") {
			err = errors.New("the manifest is not built")
		}
		return err
	})
	return h, parts
}

func TestScanAnnouncesWhatDiffers(t *testing.T) {
	m := newMaster(t)
	m.write("a", "d/b")
	h, parts := m.running()
	if s := scan(t, h, trigger.ScanRequest{}); s.Published != nil || s.Found != (trigger.Found{}) || s.Entries != 4 {
		t.Errorf("nothing differs: %+v", s)
	}
	m.write("new")
	check(t, os.Remove(filepath.Join(m.tree, "a")))
	check(t, os.Chmod(filepath.Join(m.tree, "d"), 0o700))
	dry := scan(t, h, trigger.ScanRequest{DryRun: true})
	if dry.Published == nil || len(dry.Published.Set) != 3 || dry.Published.Serial != 0 {
		t.Errorf("dry run: %+v", dry)
	}
	s := scan(t, h, trigger.ScanRequest{})
	if s.Published == nil || s.Published.Serial != 1 || s.Found != (trigger.Found{Added: 1, Meta: 1, Removed: 1}) || !s.Published.Relaying {
		t.Errorf("scanned: %+v", s)
	}
	if got := m.announced(parts); got != "-a =d +new" {
		t.Errorf("announced %s", got)
	}
	log, err := parts.Journal.Log(t.Context(), "m", 0, 1)
	check(t, err)
	if log[0].Source != "scan" {
		t.Errorf("by %q", log[0].Source)
	}
	if s := scan(t, h, trigger.ScanRequest{}); s.Published != nil { // though the manifest has not taken it in by itself yet
		t.Errorf("announced again: %+v", s)
	}
	st, err := h.Status(t.Context())
	check(t, err)
	if l := st.Modules[0].Scan; l == nil || l.Error != "" || l.Serial != 0 || l.At.IsZero() || l.String() != "nothing differs" {
		t.Errorf("status shows %+v", l)
	}
}

// What was published is not announced again by a scan right after.
func TestScanLeavesOutWhatIsAnnounced(t *testing.T) {
	m := newMaster(t)
	h, parts := m.running()
	m.publish(h, "a", "d/b", "e/f")
	m.write("c")
	scan(t, h, trigger.ScanRequest{})
	if got := m.announced(parts); got != "+c" {
		t.Errorf("announced %s", got)
	}
}

// What somebody announces while the tree is walked is not announced by the scan too.
func TestScanLeavesOutWhatIsAnnouncedMeanwhile(t *testing.T) {
	m := newMaster(t)
	h, parts := m.running()
	m.write("a", "b")
	published := false
	var last trigger.Scanned
	check(t, h.Scan(t.Context(), trigger.ScanRequest{Module: "m"}, func(s trigger.Scanned) error {
		last = s
		if published {
			return nil
		}
		published = true
		_, err := h.Publish(t.Context(), request("a"))
		return err
	}))
	if got := m.announced(parts); got != "+b" || last.Published == nil || last.Published.Serial != 2 {
		t.Errorf("announced %s, %+v", got, last)
	}
}

func TestScanDirs(t *testing.T) {
	m := newMaster(t)
	m.write("a", "d/b")
	h, parts := m.running()
	m.write("x", "d/y")
	s := scan(t, h, trigger.ScanRequest{Dirs: [][]byte{[]byte("d"), []byte("never")}, Source: "watch"})
	if got := m.announced(parts); got != "+d/y" {
		t.Errorf("announced %s", got)
	}
	if !slices.Contains(s.Notes, "never is neither in the tree nor in the manifest") {
		t.Errorf("notes %q", s.Notes)
	}
}

func TestScanOfVeryMuch(t *testing.T) {
	m := newMaster(t)
	m.conf.Modules[0].MaxPaths, m.conf.Modules[0].PerDirectory = 4, 2
	h, parts := m.running()
	for i := range 20 {
		m.write(fmt.Sprintf("new/%02d", i))
	}
	scan(t, h, trigger.ScanRequest{})
	if got := m.announced(parts); got != "rnew" {
		t.Errorf("announced %s", got)
	}
	for i := range 20 {
		m.write(fmt.Sprint("top", i))
	}
	s := scan(t, h, trigger.ScanRequest{})
	if got := m.announced(parts); got != "anything" || s.Published == nil || !s.Published.Condensed {
		t.Errorf("announced %s, %+v", got, s)
	}
}

func TestScanRefuses(t *testing.T) {
	m := newMaster(t)
	m.write("a", "d/b")
	h, parts := m.running()
	_, err := scanned(t, h, trigger.ScanRequest{Dirs: [][]byte{[]byte("a")}})
	refused(t, "a file", err, fault.Usage, `"a" is no directory`)
	_, err = scanned(t, h, trigger.ScanRequest{Dirs: [][]byte{[]byte("../x")}})
	refused(t, "outside", err, fault.Usage, `has a component ".."`)
	_, err = scanned(t, h, trigger.ScanRequest{Dirs: [][]byte{[]byte("d")}, Moved: true})
	refused(t, "a part has moved", err, fault.Usage, "the whole tree has moved")
	refused(t, "unknown", h.Scan(t.Context(), trigger.ScanRequest{Module: "n"}, nil), fault.Usage, `module "n" is not one of`)
	check(t, os.Rename(m.tree, m.tree+".away"))
	check(t, os.Mkdir(m.tree, 0o755))
	check(t, os.Rename(m.tree+".away/a", m.tree+"/a"))
	_, err = scanned(t, h, trigger.ScanRequest{})
	refused(t, "another tree", err, fault.Failed, "another folder")
	if st, err := h.Status(t.Context()); err != nil || !strings.Contains(st.Modules[0].Scan.String(), "failed: compare") {
		t.Errorf("status %v, %v", st.Modules[0].Scan, err)
	}
	if st, err := parts.Journal.State(t.Context(), "m"); err != nil || st.Serial != 0 {
		t.Errorf("announced up to %d, %v", st.Serial, err)
	}
	if s := scan(t, h, trigger.ScanRequest{Moved: true}); s.Found.Removed != 2 {
		t.Errorf("moved: %+v", s)
	}
	scan(t, h, trigger.ScanRequest{})
}

// One walk of a module is under way, not two.
func TestScansOneAtATime(t *testing.T) {
	m := newMaster(t)
	h, _ := m.running()
	c := m.client(h)
	var inner, manifest error
	check(t, h.Scan(t.Context(), trigger.ScanRequest{Module: "m"}, func(s trigger.Scanned) error {
		if s.Done {
			return nil
		}
		_, inner = scanned(t, h, trigger.ScanRequest{})
		manifest = c.Stream(t.Context(), "POST", "/v1/manifest?module=m", func(json.RawMessage) error { return nil })
		st, err := h.Status(t.Context())
		if err == nil && st.Modules[0].Scanning == "" {
			err = errors.New("status does not show it")
		}
		return err
	}))
	refused(t, "a second", inner, fault.TryAgain, "is being walked already")
	refused(t, "a manifest", manifest, fault.TryAgain, "is being walked already")
	gone := errors.New("nobody listens any more")
	if err := h.Scan(t.Context(), trigger.ScanRequest{Module: "m"}, func(trigger.Scanned) error { return gone }); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	scan(t, h, trigger.ScanRequest{})
}

func TestScanOverTheSocket(t *testing.T) {
	m := newMaster(t)
	h, _ := m.running()
	c := m.client(h)
	m.write("a")
	var last trigger.Scanned
	ask := func(r any) error {
		return c.StreamOf(t.Context(), "POST", "/v1/scan", r, func(raw json.RawMessage) error { return json.Unmarshal(raw, &last) })
	}
	check(t, ask(trigger.ScanRequest{Module: "m"}))
	if !last.Done || last.Found.Added != 1 || last.Published == nil || last.Published.Records != 1 {
		t.Errorf("scanned %+v", last)
	}
	faultOf(t, "unknown key", ask(map[string]any{"module": "m", "what": 1}), fault.Usage, `read request: json: unknown field "what"`)
	refused(t, "unknown module", ask(trigger.ScanRequest{Module: "n"}), fault.Usage, `module "n"`)
}

func TestScanAlone(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	scanAlone := func() (last trigger.Scanned, err error) {
		err = trigger.ScanAlone(t.Context(), &m.conf, trigger.ScanRequest{Module: "m"}, m.logger(), func(s trigger.Scanned) error { last = s; return nil })
		return last, err
	}
	_, err := scanAlone()
	refused(t, "no manifest", err, fault.TryAgain, "the manifest is not built")
	_, stop := m.start()
	stop()
	m.write("b")
	s, err := scanAlone()
	if err != nil || s.Published == nil || s.Published.Serial != 1 || s.Published.Relaying {
		t.Errorf("scanned %+v, %v", s, err)
	}
	if s, err = scanAlone(); err != nil || s.Published != nil {
		t.Errorf("again: %+v, %v", s, err)
	}
}

// A hub whose module says so scans by itself.
func TestScanEvery(t *testing.T) {
	m := newMaster(t)
	m.conf.Modules[0].ScanEvery = config.Duration{Duration: 20 * time.Millisecond}
	h, parts := m.running()
	m.write("a")
	testenv.WaitFor(t, bound, func() error {
		if st, err := parts.Journal.State(t.Context(), "m"); err != nil || st.Serial == 0 {
			return errors.Join(err, errors.New("nothing is announced"))
		}
		return nil
	})
	if got := m.announced(parts); got != "+a" {
		t.Errorf("announced %s", got)
	}
	check(t, os.RemoveAll(filepath.Join(m.tree, "a")))
	check(t, os.Remove(filepath.Join(m.tree, "there"))) // as if it were unmounted
	testenv.WaitFor(t, bound, func() error {
		st, err := h.Status(t.Context())
		if err == nil && (st.Modules[0].Scan == nil || st.Modules[0].Scan.Error == "") {
			err = errors.New("it shows no error")
		}
		return err
	})
	again := func() time.Time {
		st, err := h.Status(t.Context())
		check(t, err)
		return st.Modules[0].Scan.At
	}
	first := again()
	testenv.WaitFor(t, bound, func() error {
		if !again().After(first.Add(100 * time.Millisecond)) {
			return errors.New("it does not scan again")
		}
		return nil
	})
	if n := m.log.count("msg=scan "); n != 1 {
		t.Errorf("%d lines say why it does not scan", n)
	}
}

// found announces names as they are found.
func found(t *testing.T, h *trigger.Hub, names ...string) trigger.Published {
	t.Helper()
	r := request(names...)
	r.AsFound = true
	done, err := h.Publish(t.Context(), r)
	check(t, err)
	return done
}

// A name that came and went is not announced; one that mirrors may have is, even if the manifest has not heard of it yet.
func TestNamesThatCameAndWent(t *testing.T) {
	m := newMaster(t)
	m.write("a", "d/b")
	h, parts := m.running()
	if done := found(t, h, ".tmp.1", "x/y"); done.Serial != 0 || done.Records != 0 || done.Relaying {
		t.Errorf("names that never were: %+v", done)
	}
	m.publish(h, "c", "e/f")
	for _, name := range []string{"a", "c", "e"} {
		check(t, os.RemoveAll(filepath.Join(m.tree, name)))
	}
	if done := found(t, h, "a", "c", "e/f", ".tmp.2"); done.Serial != 2 {
		t.Errorf("what was there: %+v", done)
	}
	if got := m.announced(parts); got != "-a -c -e" {
		t.Errorf("announced %s", got)
	}
	_, err := h.Publish(t.Context(), request("d")) // as a whole
	check(t, err)
	if found(t, h, "d/.tmp.3"); m.announced(parts) != "-d/.tmp.3" {
		t.Errorf("what may have been in a directory that was announced as a whole: %s", m.announced(parts))
	}
	if found(t, h, "there", "pipe/../x"); m.announced(parts) != "+there" {
		t.Errorf("announced %s", m.announced(parts))
	}
}

// While another request looks at names, nobody knows what it will announce.
func TestNamesThatGoWhileOthersAreAnnounced(t *testing.T) {
	m := newMaster(t)
	h, _ := m.running()
	end := trigger.BeginRequest(h, "m")
	if done := found(t, h, "gone"); done.Serial != 1 {
		t.Errorf("left out: %+v", done)
	}
	end()
	if done := found(t, h, "other"); done.Serial != 0 {
		t.Errorf("announced: %+v", done)
	}
}

// A change through one name of an inode is announced for all names that the manifest knows.
func TestOtherNamesOfAnInode(t *testing.T) {
	m := newMaster(t)
	m.write("a", "d/b", "other")
	for _, name := range []string{"d/a2", "e", "away"} {
		check(t, os.Link(filepath.Join(m.tree, "a"), filepath.Join(m.tree, name)))
	}
	h, parts := m.running()
	check(t, os.Remove(filepath.Join(m.tree, "away")))
	m.write("away")
	check(t, os.Chmod(filepath.Join(m.tree, "a"), 0o600))
	m.check(h, parts, request("=a"), "=a =d/a2 =e")
	m.check(h, parts, request("e"), "+a +d/a2 +e")
	r := request("d/a2", "other")
	r.AsFound = true
	m.check(h, parts, r, "+a +d/a2 +e +other")
	flip := request("a")
	flip.Flip, flip.Expires = true, time.Now().Add(time.Hour)
	m.check(h, parts, flip, "=a =d/a2 =e")
	links := map[uint64]int{}
	a, err := parts.Journal.Latest(t.Context(), "m")
	check(t, err)
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	check(t, err)
	for _, r := range set {
		links[r.Link]++
	}
	if links[1] != 3 || set[0].Op != event.Meta {
		t.Errorf("groups %v", links)
	}
}

func (m *master) check(h *trigger.Hub, parts *trigger.Parts, r trigger.Request, want string) {
	m.t.Helper()
	_, err := h.Publish(m.t.Context(), r)
	check(m.t, err)
	if got := m.announced(parts); got != want {
		m.t.Errorf("announced %s, want %s", got, want)
	}
}
