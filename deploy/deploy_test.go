package deploy

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/all"
	"github.com/mirrorbus/mirrorbus/transports/outlet"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// sections are the transports of a side, with their defaults.
func sections(role transports.Role) config.Sections {
	s := config.Sections{}
	for _, d := range all.Registry() {
		s[d.Name] = d.Config(role)
	}
	return s
}

func newMaster() any {
	c := trigger.Defaults()
	c.Transport = sections(transports.Master)
	return &c
}

func newMirror() any {
	c := listener.Defaults()
	c.Transport = sections(transports.Mirror)
	return &c
}

// decode reads a configuration strictly, from a folder that has the files it names, and returns each setting by its dotted key.
func decode(t *testing.T, text string, into any) map[string]any {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"announce_key", "hub_host_key", "mirror_key", "allowed_signers", "allowed_masters", "revoked_keys", "known_hosts", "push_key", "push_known_hosts", "web_certificate.pem", "web_key.pem"} {
		write(t, filepath.Join(dir, name), "")
	}
	for _, name := range []string{"amqp_password", "mail_password", "web_password", "dns_secret"} {
		if err := os.Chmod(write(t, filepath.Join(dir, name), "c2VjcmV0"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := config.File(write(t, filepath.Join(dir, "sample.toml"), text), into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	effective, err := config.Effective(into)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := toml.Unmarshal([]byte(strings.ReplaceAll(string(effective), dir, "")), &tree); err != nil {
		t.Fatal(err)
	}
	flat := map[string]any{}
	flatten(flat, "", tree)
	return flat
}

func flatten(into map[string]any, key string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			flatten(into, key+"."+k, inner)
		}
	case []any:
		if len(v) > 0 && reflect.TypeOf(v[0]).Kind() == reflect.Map {
			for i, inner := range v {
				flatten(into, fmt.Sprintf("%s.%d", key, i), inner)
			}
			return
		}
		into[key] = v
	default:
		into[key] = v
	}
}

var shown = regexp.MustCompile(`(?m)^#([a-z_]+ *=)`)

// Each sample is read as it is; and with every line that shows a default taken as a setting, which changes nothing but what has no default. So
// no default in a sample is a wrong one, and every setting there is stands in it.
func TestSamples(t *testing.T) {
	for name, fresh := range map[string]func() any{"master": newMaster, "mirror": newMirror} {
		t.Run(name, func(t *testing.T) {
			text := read(t, "sample/"+name+".toml") + read(t, "sample/"+name+"-amqp.toml") + read(t, "sample/"+name+"-ssh.toml") + read(t, "sample/"+name+"-irc.toml") + read(t, "sample/"+name+"-mail.toml") +
				read(t, "sample/"+name+"-poll.toml")
			plain := decode(t, text, fresh())
			whole := shown.ReplaceAllString(text, "$1")
			every := decode(t, whole, fresh())
			for _, key := range slices.Sorted(maps.Keys(every)) {
				was, now := plain[key], every[key]
				if was != nil && !empty(was) && !reflect.DeepEqual(was, now) {
					t.Errorf("%s: the sample shows %v as the default, it is %v", key[1:], now, was)
				}
				last := key[strings.LastIndexByte(key, '.')+1:]
				if !regexp.MustCompile(`(?m)^(# .*: )?` + last + ` =`).MatchString(whole) {
					t.Errorf("%s is not in the sample", key[1:])
				}
			}
		})
	}
}

func empty(v any) bool {
	r := reflect.ValueOf(v)
	return r.IsZero() || r.Kind() == reflect.Slice && r.Len() == 0
}

func TestSamplesAreStrict(t *testing.T) {
	text := strings.Replace(read(t, "sample/master.toml"), "path =", "paht =", 1)
	c := newMaster()
	err := config.Decode("master.toml", []byte(text), c)
	if err == nil || !strings.Contains(err.Error(), `"paht"`) {
		t.Errorf("got %v", err)
	}
}

// The units say nothing that systemd does not know, and are as closed as they can be. The program need not be there.
func TestUnits(t *testing.T) {
	analyze := testenv.Need(t, "systemd-analyze")
	for name, dropIn := range map[string]string{"mirrorbus-hub": "", "mirrorbus-watch": "", "mirrorbus-agent": "", "mirrorbus-agent with owners": "owner.conf"} {
		t.Run(name, func(t *testing.T) {
			service := strings.Fields(name)[0] + ".service"
			text := strings.Replace(read(t, "systemd/"+service), "/usr/bin/mirrorbus", testenv.Need(t, "true"), 1)
			limit := "20" // of 100; a unit without any hardening has 92
			if dropIn != "" {
				text, limit = text+read(t, "systemd/"+dropIn), "40"
			}
			unit := write(t, filepath.Join(t.TempDir(), service), text)
			if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || strings.Contains(string(out), filepath.Base(unit)) {
				t.Errorf("systemd-analyze verify: %v\n%s", err, out)
			}
			if out, err := exec.Command(analyze, "security", "--offline=yes", "--no-pager", "--threshold="+limit, unit).CombinedOutput(); err != nil {
				t.Errorf("systemd-analyze security: %v\n%s", err, out)
			}
		})
	}
}

func TestSysusersAndTmpfiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sysusers", "tmpfiles"} {
		program := testenv.Need(t, "systemd-"+name)
		args := map[string][]string{"sysusers": {"--dry-run"}, "tmpfiles": {"--create", "--prefix=/none"}}[name]
		file, err := filepath.Abs("systemd/" + name + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program, append(args, "--root="+dir, file)...).CombinedOutput()
		if err != nil || strings.Contains(strings.ToLower(string(out)), "invalid") || strings.Contains(string(out), "Unknown") {
			t.Errorf("systemd-%s: %v\n%s", name, err, out)
		}
	}
}

// The rsync daemon reads its configuration as it stands, but for port, folders and, unless root runs the test, root's privileges.
func TestRsyncd(t *testing.T) {
	rsync := testenv.Need(t, "rsync")
	tree := t.TempDir()
	old := time.Unix(1700000000, 0) // rsync leaves a folder's time alone if it is right to the second
	testenv.WriteTree(t, tree, testenv.Dir("pool", 0o755).At(old), testenv.File("pool/a", "hello"), testenv.File("pool/b", "hello"),
		testenv.Dir(".mirrorbus", 0o755).At(old), testenv.File(".mirrorbus/head", "a head"), testenv.File(".mirrorbus/.tmp-x", "half"),
		testenv.Dir(".mirrorbus/journal", 0o755).At(old), testenv.File(".mirrorbus/journal/.tmp-y", "half"))
	conf := strings.NewReplacer("/srv/fedora", tree, "/run/", t.TempDir()+"/").Replace(read(t, "rsync/rsyncd.conf"))
	if os.Geteuid() != 0 {
		conf = strings.NewReplacer("use chroot = yes", "use chroot = no", "uid = nobody", "", "gid = nogroup", "").Replace(conf)
	}
	url := startRsyncd(t, rsync, conf)
	fetch := func(args ...string) (string, []string, error) {
		t.Helper()
		dst := t.TempDir()
		out, err := exec.Command(rsync, append(args, dst+"/")...).CombinedOutput()
		return string(out), testenv.Diff(t, tree, dst, ".mirrorbus/.tmp-x", ".mirrorbus/journal/.tmp-y"), err
	}
	if out, diff, err := fetch("-rlpt", url+"fedora/"); err != nil || len(diff) > 0 {
		t.Errorf("full: %v\n%s%s", err, out, strings.Join(diff, "\n"))
	}
	if out, _, err := fetch("-rlpt", url+"fedora-scoped/"); err == nil || !strings.Contains(out, "refuse --recursive") {
		t.Errorf("recursion in the scoped module: %v\n%s", err, out)
	}
	list := write(t, filepath.Join(t.TempDir(), "list"), ".mirrorbus/head\npool/a\n")
	for _, module := range []string{"fedora", "fedora-scoped"} {
		dst := t.TempDir()
		if out, err := exec.Command(rsync, "-lpt", "--files-from="+list, url+module+"/", dst+"/").CombinedOutput(); err != nil {
			t.Errorf("%s, by list: %v\n%s", module, err, out)
		}
		if got := read(t, dst+"/.mirrorbus/head") + read(t, dst+"/pool/a"); got != "a headhello" {
			t.Errorf("%s, by list: got %q", module, got)
		}
	}
	if _, err := os.Stat(tree + "/.mirrorbus/.tmp-x"); err != nil {
		t.Error(err)
	}
}

// startRsyncd runs the daemon on a free port until the test ends and returns its address.
func startRsyncd(t *testing.T, rsync, conf string) (url string) {
	t.Helper()
	port := testenv.FreePort(t)
	file := write(t, filepath.Join(t.TempDir(), "rsyncd.conf"), conf)
	var log strings.Builder
	cmd := exec.Command(rsync, "--daemon", "--no-detach", "--config="+file, "--address=127.0.0.1", fmt.Sprint("--port=", port), "--log-file=/dev/stderr")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // it was killed
		if strings.Contains(log.String(), "Unknown Parameter") || t.Failed() {
			t.Errorf("the daemon said: %s", log.String())
		}
	})
	url = fmt.Sprintf("rsync://127.0.0.1:%d/", port)
	testenv.WaitFor(t, 10*time.Second, func() error {
		out, err := exec.Command(rsync, "--contimeout=5", url).CombinedOutput()
		if err == nil && (!strings.Contains(string(out), "Fedora, announced") || strings.Contains(string(out), "scoped")) {
			t.Fatalf("the daemon lists %s", out)
		}
		return err
	})
	return url
}

// Each configuration on the page about mail is one.
func TestMailPage(t *testing.T) {
	text := read(t, "mail/README.md")
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks", len(blocks))
	}
	whole := read(t, "sample/master.toml") + blocks[0][1] + blocks[1][1]
	got := decode(t, whole, newMaster())
	for key, want := range map[string]any{".transport.mail.tls": "starttls", ".transport.mail.imap_user": "mirrorbus"} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if c := newMaster(); config.Decode("m", []byte("[transport.mail]\nlmtp = \"127.0.0.1:2424\"\n"), c) == nil {
		t.Error("a section without servers is taken")
	}
}

// What the first page says to write into a configuration can stand there, on a mirror or on a master, and its links lead to files.
func TestFirstPage(t *testing.T) {
	text := read(t, "../README.md")
	blocks := regexp.MustCompile("(?s)```\n(\\[transport\\..*?)```").FindAllStringSubmatch(text, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of configuration, there are three: of AMQP, mail and looking", len(blocks))
	}
	for i, section := range []string{"amqp", "mail", "poll"} {
		got := decode(t, read(t, "sample/mirror.toml")+blocks[i][1], newMirror())
		if !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(key string) bool { return strings.HasPrefix(key, ".transport."+section+".") }) {
			t.Errorf("block %d: no [transport.%s] in %v", i, section, got)
		}
	}
	links(t, "..", text)
}

// The operator's page explains every word of status, and names no file that is not there.
func TestReadme(t *testing.T) {
	text := read(t, "README.md")
	for _, s := range listener.States() {
		if !strings.Contains(text, "`"+string(s)+"`") {
			t.Errorf("state %s is not explained", s)
		}
	}
	for _, s := range outlet.States() {
		if !strings.Contains(text, "| `"+string(s)+"` |") {
			t.Errorf("state %s of a transport is not explained", s)
		}
	}
	links(t, ".", text)
}

// links fails the test for each link of a page in a folder that leads to no file.
func links(t *testing.T, folder, page string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join(folder, m[1])); err != nil {
			t.Errorf("link: %v", err)
		}
	}
}
