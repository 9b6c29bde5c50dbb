package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/poll"
)

// Each configuration on the page about looking is one.
func TestPollPage(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(read(t, "poll/README.md"), -1)
	if len(blocks) != 5 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for i, want := range []struct {
		key   string
		sides func() any
		base  string
	}{
		{"head", newMirror, "mirror"}, {"url", newMaster, "master"}, {"feed", newMirror, "mirror"}, {"dns.zone", newMaster, "master"}, {"dns", newMirror, "mirror"},
	} {
		got := decode(t, read(t, "sample/"+want.base+".toml")+blocks[i][1], want.sides())
		if text, ok := got[".transport.poll."+want.key].(string); !ok || !strings.Contains(text, "example.org") {
			t.Errorf("block %d: %s is %v", i, want.key, got[".transport.poll."+want.key])
		}
	}
}

// What the page has for nginx and for Apache serves the head in a tree, dots and all, and the hub's own server from behind.
func TestPollPageNginx(t *testing.T) {
	webPage(t, "nginx", func(root, extra string) string { return testenv.StartNginx(t, root, extra).Addr() })
}

func TestPollPageApache(t *testing.T) {
	webPage(t, "apache", func(root, extra string) string { return testenv.StartApache(t, root, extra).Addr() })
}

// webPage starts a web server with the blocks of the page that are in its language.
func webPage(t *testing.T, language string, start func(root, extra string) (addr string)) {
	t.Helper()
	hub := servingMaster(t)
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(read(t, "poll/README.md"), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks for %s", len(blocks), language)
	}
	var extra strings.Builder
	for _, block := range blocks {
		extra.WriteString(strings.Replace(block[1], "127.0.0.1:8480", hub, 1))
	}
	root := t.TempDir()
	write(t, root+"/pub/fedora/.mirrorbus/head", theHead(1)+"\n")
	addr := start(root, extra.String())
	for path, want := range map[string]string{"/pub/fedora/.mirrorbus/head": "text/plain", "/mirrorbus/fedora/feed.atom": "application/atom+xml"} {
		testenv.WaitFor(t, 10*time.Second, func() error {
			answer, err := http.Get("http://" + addr + path)
			if err != nil {
				return err
			}
			defer answer.Body.Close() //nolint:errcheck // it was only read
			if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), want) || answer.Header.Get("Cache-Control") != "max-age=10" {
				return fmt.Errorf("%s: %s, %v", path, answer.Status, answer.Header)
			}
			return nil
		})
	}
	http.DefaultClient.CloseIdleConnections()
}

// servingMaster is a master that serves its feeds, and where.
func servingMaster(t *testing.T) (addr string) {
	t.Helper()
	conf := poll.DefaultMasterConfig()
	conf.Listen = fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	master, err := transports.Registry{poll.Driver()}.Open(transports.Master, poll.Name, conf, transports.Env{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- master.Run(ctx, []transports.Subscription{{Topic: transports.Topic{Kind: transports.Report, Module: "fedora"}}}, &finder{})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return conf.Listen
}

// What the page has for BIND is taken by it, with the zone.
func TestPollPageBind(t *testing.T) {
	check := testenv.Need(t, "named-checkconf")
	var conf, zone string
	for _, block := range strings.Split(read(t, "poll/README.md"), "```") {
		switch {
		case strings.HasPrefix(block, "\ninclude "):
			conf = block
		case strings.HasPrefix(block, "\n$TTL"):
			zone = block[1:]
		}
	}
	dir := t.TempDir()
	write(t, dir+"/mirrorbus.key", "key \"mirrorbus\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n")
	write(t, dir+"/mirrors.example.org", zone)
	file := write(t, dir+"/named.conf", strings.NewReplacer("/etc/bind", dir, "/var/lib/bind", dir).Replace(conf))
	if out, err := exec.Command(check, "-z", file).CombinedOutput(); err != nil || !strings.Contains(string(out), "zone mirrors.example.org/IN: loaded serial 1") {
		t.Errorf("named-checkconf: %v: %s", err, out)
	}
}

// theHead is a line as long as they become.
func theHead(serial int) string {
	return fmt.Sprintf("mirrorbus1 head module=fedora epoch=7c1e9f02 serial=%d at=2026-11-20T19:02:11Z ttl=900 last=%s man=%s key=%s sig=%s",
		serial, strings.Repeat("L", 43), strings.Repeat("M", 43), strings.Repeat("-", 11), strings.Repeat("_", 86))
}

// What the script puts into the DNS is what a mirror finds there.
func TestHeadByNsupdate(t *testing.T) {
	testenv.Need(t, "nsupdate", "dig")
	server := testenv.StartNamed(t, "mirrors.test")
	file := filepath.Join(t.TempDir(), "head")
	run := func(text string) (string, error) {
		t.Helper()
		out, err := exec.Command("poll/nsupdate-head", write(t, file, text), "fedora", server.Zone, server.Addr(), server.KeyFile).CombinedOutput()
		return string(out), err
	}
	for serial := 1; serial <= 2; serial++ {
		for range 2 { // the second time there is nothing to do
			if out, err := run(theHead(serial) + "\n"); err != nil || out != "" {
				t.Fatalf("%v: %s", err, out)
			}
		}
		if got := lookUp(t, server); got != theHead(serial) {
			t.Errorf("a mirror found %q, want serial %d", got, serial)
		}
	}
	for _, bad := range []string{"", "<html>", "mirrorbus1 head \"x\"", "mirrorbus1 head \x07", "mirrorbus1 head\nand more"} {
		if out, err := run(bad); err == nil || !strings.HasPrefix(out, "nsupdate-head: ") {
			t.Errorf("%q: %v: %s", bad, err, out)
		}
	}
	if got := lookUp(t, server); got != theHead(2) {
		t.Errorf("after bad heads a mirror found %q", got)
	}
	if out, err := exec.Command("poll/nsupdate-head").CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "Usage: ") {
		t.Errorf("without arguments: %v: %s", err, out)
	}
}

// lookUp is what a mirror finds in the DNS.
func lookUp(t *testing.T, server *testenv.Named) string {
	t.Helper()
	conf := poll.DefaultMirrorConfig()
	conf.DNS, conf.DNSServer = server.Zone, server.Addr()
	mirror, err := transports.Registry{poll.Driver()}.Open(transports.Mirror, poll.Name, conf, transports.Env{})
	if err != nil {
		t.Fatal(err)
	}
	found := &finder{}
	topic := transports.Topic{Kind: transports.Announce, Module: "fedora"}
	if err := mirror.Run(t.Context(), []transports.Subscription{{Topic: topic}}, found); !errors.Is(err, os.ErrExist) {
		t.Fatalf("Run returned %v", err)
	}
	return found.body
}

// A finder ends a Run as soon as something is found.
type finder struct{ body string }

func (*finder) Connected() {}
func (f *finder) Receive(_ context.Context, m transports.Message) error {
	f.body = string(m.Body)
	return os.ErrExist
}
