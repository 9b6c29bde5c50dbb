package enrol_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/transports/hub"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const oddPath = "/srv/it's \"odd\" \\ é\x7f\t"

func master(dir string) enrol.Master {
	return enrol.Master{
		Dir: dir, State: dir + "/state", Socket: dir + "/sock", Name: "master", Listen: "127.0.0.1:2222", Address: "master.example.org:2222",
		Modules: []enrol.Module{{Name: "fedora", Path: oddPath, Upstream: "rsync://master.example.org/fedora"}, {Name: "epel", Path: "/srv/epel", Upstream: "rsync://master.example.org/epel"}},
	}
}

func mirror(dir, name string, j enrol.Join) enrol.Mirror {
	return enrol.Mirror{
		Dir: dir, State: dir + "/state", Socket: dir + "/sock", Name: name, Join: j, Modules: []enrol.Module{{Name: "fedora", Path: oddPath}},
	}
}

func initMaster(t *testing.T, dir string) (string, enrol.Join) {
	t.Helper()
	path, join, err := enrol.InitMaster(master(dir))
	if err != nil {
		t.Fatal(err)
	}
	return path, join
}

// The three commands: after them both sides read their configuration, and each believes the other what it may say, and no more.
func TestThreeCommands(t *testing.T) {
	masterDir, mirrorDir := filepath.Join(t.TempDir(), "etc"), filepath.Join(t.TempDir(), "etc")
	masterFile, join := initMaster(t, masterDir)
	heard, err := enrol.ParseJoin(" " + join.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	mirrorFile, key, err := enrol.InitMirror(mirror(mirrorDir, "mirror1", heard))
	if err != nil {
		t.Fatal(err)
	}
	if err := enrol.AddMirror(filepath.Join(masterDir, "allowed_signers"), "mirror1", key+" a comment"); err != nil {
		t.Fatal(err)
	}
	m, a := trigger.Defaults(), listener.Defaults()
	m.Transport = config.Sections{"hub": hub.DefaultServerConfig()}
	a.Transport = config.Sections{"hub": hub.DefaultClientConfig()}
	if err := config.File(masterFile, &m); err != nil {
		t.Fatal(err)
	}
	if err := config.File(mirrorFile, &a); err != nil {
		t.Fatal(err)
	}
	checkConfigs(t, m, a)
	checkTrust(t, m, a)
}

func checkConfigs(t *testing.T, m trigger.Config, a listener.Config) {
	t.Helper()
	if m.Modules[0].Path != oddPath || a.Modules[0].Path != oddPath || a.Modules[0].Upstream != "rsync://master.example.org/fedora" || len(a.Modules) != 1 {
		t.Errorf("modules %+v and %+v", m.Modules, a.Modules)
	}
	server, client := m.Transport["hub"].(*hub.ServerConfig), a.Transport["hub"].(*hub.ClientConfig)
	hostKey, err := signers.LoadSigner(string(server.HostKey))
	if err != nil {
		t.Fatal(err)
	}
	if client.Address != "master.example.org:2222" || client.HostKey != strings.TrimSpace(string(ssh.MarshalAuthorizedKey(hostKey.PublicKey()))) {
		t.Errorf("the mirror dials %s and expects %s", client.Address, client.HostKey)
	}
}

// checkTrust sends a line each way.
func checkTrust(t *testing.T, m trigger.Config, a listener.Config) {
	t.Helper()
	seal := func(key config.Path, msg event.Texter) []byte {
		signer, err := signers.LoadSigner(string(key))
		if err != nil {
			t.Fatal(err)
		}
		line, err := event.Seal(msg, signer)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	open := func(trust config.Path, grants []event.Grant, line []byte) error {
		store, err := signers.Open(string(trust), "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = event.Gate{Trust: store, Grants: grants}.Open(line, time.Now())
		return err
	}
	var grants []event.Grant
	for _, g := range a.Grants {
		grants = append(grants, event.Grant{Principal: g.Principal, Modules: g.Modules, Kinds: g.Kinds})
	}
	head := event.Head{Module: "fedora", Epoch: "7c1e9f02", At: time.Now().UTC().Truncate(time.Second), TTL: time.Hour}
	report := event.Report{Module: "fedora", Mirror: "mirror1", Epoch: "7c1e9f02", Outcome: event.Have}
	if err := open(a.Trust, grants, seal(m.Key, head)); err != nil {
		t.Errorf("the mirror does not believe the master: %v", err)
	}
	if err := open(m.Trust, nil, seal(a.Key, report)); err != nil {
		t.Errorf("the master does not believe the mirror: %v", err)
	}
	if err := open(m.Trust, []event.Grant{{Principal: "mirror1", Modules: []string{"*"}, Kinds: event.Kinds()}}, seal(a.Key, head)); err == nil {
		t.Error("a mirror may announce")
	}
	head.Module = "epel"
	if err := open(a.Trust, grants, seal(m.Key, head)); err == nil {
		t.Error("a module that is not mirrored here may be announced")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	_, join := initMaster(t, dir)
	if _, _, err := enrol.InitMirror(mirror(dir, "mirror1", join)); err != nil {
		t.Fatal(err)
	}
	want := map[string]os.FileMode{
		"announce_key": 0o600, "announce_key.pub": 0o644, "hub_host_key": 0o600, "hub_host_key.pub": 0o644, "mirror_key": 0o600, "mirror_key.pub": 0o644,
		"allowed_signers": 0o644, "allowed_masters": 0o644, "master.toml": 0o644, "mirror.toml": 0o644,
	}
	for _, e := range ls(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, e)); err != nil || info.Mode().Perm() != want[e] {
			t.Errorf("%s has mode %v, want %v (%v)", e, info.Mode(), want[e], err)
		}
		delete(want, e)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	word := join.String()
	for _, name := range []string{"announce_key", "hub_host_key", "mirror_key"} {
		if text := read(t, filepath.Join(dir, name)); strings.Contains(word, text) || !strings.Contains(text, "OPENSSH PRIVATE KEY") {
			t.Errorf("%s is %.40q", name, text)
		}
	}
}

func ls(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// Where one of the files is already, nothing is written at all. Only keys are used again.
func TestNothingIsOverwritten(t *testing.T) {
	_, join := initMaster(t, t.TempDir())
	for _, name := range []string{"master.toml", "allowed_signers", "mirror.toml", "allowed_masters", "announce_key.pub", "mirror_key.pub"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, name), "mine", 0o644)
		var err error
		if strings.Contains(name, "mirror") || name == "allowed_masters" {
			_, _, err = enrol.InitMirror(mirror(dir, "mirror1", join))
		} else {
			_, _, err = enrol.InitMaster(master(dir))
		}
		if fault.StatusOf(err) != fault.Config || !strings.Contains(err.Error(), filepath.Join(dir, name)+" is there already") || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
		if got := ls(t, dir); !slices.Equal(got, []string{name}) || read(t, filepath.Join(dir, name)) != "mine" {
			t.Errorf("%s: the folder now holds %v", name, got)
		}
	}
}

func TestKeysAreKept(t *testing.T) {
	dir := t.TempDir()
	_, first := initMaster(t, dir)
	for _, name := range []string{"master.toml", "allowed_signers"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, again := initMaster(t, dir); again.Key != first.Key || again.HubKey != first.HubKey {
		t.Error("the keys are others")
	}
	other := t.TempDir()
	write(t, filepath.Join(other, "announce_key"), "no key", 0o600)
	if _, _, err := enrol.InitMaster(master(other)); err == nil || !strings.Contains(err.Error(), "not a private key") {
		t.Errorf("got %v", err)
	}
}

func TestInitRefuses(t *testing.T) {
	_, join := initMaster(t, t.TempDir())
	for name, c := range map[string]struct {
		change func(*enrol.Mirror)
		want   string
	}{
		"no name":        {func(m *enrol.Mirror) { m.Name = "" }, `name ""`},
		"bad name":       {func(m *enrol.Mirror) { m.Name = "a b" }, `name "a b"`},
		"bad module":     {func(m *enrol.Mirror) { m.Modules[0].Name = "../etc" }, `module name "../etc"`},
		"module twice":   {func(m *enrol.Mirror) { m.Modules = append(m.Modules, m.Modules[0]) }, "fedora is named twice"},
		"unknown module": {func(m *enrol.Mirror) { m.Modules[0].Name = "debian" }, "module debian is not one that the master offers"},
		"path not UTF-8": {func(m *enrol.Mirror) { m.Modules[0].Path = "/srv/\xff" }, "is not UTF-8"},
	} {
		m := mirror(filepath.Join(t.TempDir(), "etc"), "mirror1", join)
		c.change(&m)
		_, _, err := enrol.InitMirror(m)
		if fault.StatusOf(err) != fault.Usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(m.Dir); err == nil {
			t.Errorf("%s: something was written", name)
		}
	}
	bad := master(filepath.Join(t.TempDir(), "etc"))
	bad.Modules[1].Name = "EPEL"
	if _, _, err := enrol.InitMaster(bad); fault.StatusOf(err) != fault.Usage {
		t.Errorf("got %v", err)
	} else if _, err := os.Stat(bad.Dir); err == nil {
		t.Error("something was written")
	}
}

// A join word that lost or changed anything on its way is noticed.
func TestDamagedJoinWord(t *testing.T) {
	_, join := initMaster(t, t.TempDir())
	word := join.String()
	damaged := []string{"", "mirrorbus-join1.", "mirrorbus-join2." + word[16:], word[1:], word + "A", "hello"}
	for i := range word {
		other := byte('A')
		if word[i] == 'A' {
			other = 'B'
		}
		damaged = append(damaged, word[:i], word[:i]+string(other)+word[i+1:], word[:i]+" "+word[i:])
	}
	for _, w := range damaged {
		if strings.TrimSpace(w) == word {
			continue
		}
		if j, err := enrol.ParseJoin(w); fault.StatusOf(err) != fault.Usage || !strings.Contains(err.Error(), "damaged") || fault.HintOf(err) == "" {
			t.Fatalf("%q is read as %+v, %v", w, j, err)
		}
	}
	for name, change := range map[string]func(*enrol.Join){
		"a key of two lines": func(j *enrol.Join) { j.Key += "\nmaster2 " + j.Key },
		"no host key":        func(j *enrol.Join) { j.HubKey = "" },
		"no port":            func(j *enrol.Join) { j.Hub = "master.example.org" },
		"a bad principal":    func(j *enrol.Join) { j.Master = "*" },
		"a bad module":       func(j *enrol.Join) { j.Modules = []enrol.Module{{Name: "a\nb"}} },
	} {
		j := join
		change(&j)
		if _, err := enrol.ParseJoin(j.String()); fault.StatusOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAddMirrorsAtOnce(t *testing.T) {
	dir := t.TempDir()
	_, join := initMaster(t, dir)
	trust := filepath.Join(dir, "allowed_signers")
	var g errgroup.Group
	const count = 20
	for i := range count {
		name := fmt.Sprintf("mirror%02d", i)
		_, key, err := enrol.InitMirror(mirror(t.TempDir(), name, join))
		if err != nil {
			t.Fatal(err)
		}
		g.Go(func() error { return enrol.AddMirror(trust, name, key) })
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(read(t, trust), "\nmirror"); n != count {
		t.Errorf("%d of %d mirrors stand in the trust file", n, count)
	}
}

func TestAddMirror(t *testing.T) {
	dir := t.TempDir()
	_, join := initMaster(t, dir)
	trust := filepath.Join(dir, "allowed_signers")
	key := func(name string) string {
		t.Helper()
		_, k, err := enrol.InitMirror(mirror(t.TempDir(), name, join))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k1, k2 := key("mirror1"), key("mirror2")
	write(t, trust, strings.TrimSuffix(read(t, trust), "\n"), 0o644) // as some editors leave it
	before := read(t, trust)
	for range 2 { // the second time is no error and changes nothing
		if err := enrol.AddMirror(trust, "mirror1", k1); err != nil {
			t.Fatal(err)
		}
		if got, want := read(t, trust), before+"\nmirror1 namespaces=\"report@mirrorbus\" "+k1+"\n"; got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
	after := read(t, trust)
	for name, c := range map[string]struct{ mirror, key, want string }{
		"another key for the name":  {"mirror1", k2, "has another key for mirror1 already"},
		"the master's name":         {"master", k2, "has another key for master already"},
		"another name for the key":  {"mirror9", k1, "has that key for mirror1 already"},
		"the master's key":          {"mirror9", join.Key, "has that key for master already"},
		"a bad name":                {"mirror 2", k2, `name "mirror 2"`},
		"no key":                    {"mirror2", "ssh-ed25519 AAAA", "is not one public key"},
		"two keys":                  {"mirror2", k2 + "\nmirror3 " + k2, "is not one public key"},
		"a key with options":        {"mirror2", `command="sh" ` + k2, "is not one public key"},
		"a private key by accident": {"mirror2", "-----BEGIN OPENSSH PRIVATE KEY-----", "is not one public key"},
	} {
		if err := enrol.AddMirror(trust, c.mirror, c.key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if read(t, trust) != after || len(ls(t, dir)) != 6 {
		t.Errorf("something was left: %v", ls(t, dir))
	}
	if err := enrol.AddMirror(trust, "mirror2", k2); err != nil {
		t.Error(err)
	}
	if err := enrol.AddMirror(filepath.Join(dir, "nowhere"), "mirror2", k2); err == nil || !strings.Contains(err.Error(), "trust file") {
		t.Errorf("got %v", err)
	}
}
