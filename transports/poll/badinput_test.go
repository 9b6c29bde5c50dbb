package poll_test

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/poll"
)

const errorPage = "<!DOCTYPE html>\n<html><head><title>Down for maintenance</title></head><body><h1>We will be back</h1></body></html>\n"

// foreignFeed is a feed of somebody else, whose second entry claims to be ours.
const foreignFeed = `<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>News</title><entry><title>1</title><content type="html">&lt;p&gt;hello</content></entry>
<entry><title>2</title><content type="application/vnd.mirrorbus.announce">!!!</content></entry></feed>`

// bomb grows when it is expanded.
const bomb = `<?xml version="1.0"?><!DOCTYPE feed [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><feed xmlns="http://www.w3.org/2005/Atom"><entry><content>&b;</content></entry></feed>`

// says answers with a text and status 200.
func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) } //nolint:errcheck // the client may have gone
}

func refuses(status int, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Set(fields[i], fields[i+1])
		}
		http.Error(w, errorPage, status)
	}
}

// sends counts the bytes of an endless answer, which begins as a good one would.
func sends(n *atomic.Int64, declared string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if declared != "" {
			w.Header().Set("Content-Length", declared)
		}
		for text := []byte(line("head", 1) + "\n"); ; text = []byte(strings.Repeat(" \n", 4096)) {
			sent, err := w.Write(text)
			n.Add(int64(sent))
			if err != nil {
				return
			}
		}
	}
}

// TestWhatIsNoAnswer: each is one error that says what it is, and ends the Run; nothing of it is handed on, and hardly anything is read.
func TestWhatIsNoAnswer(t *testing.T) {
	var declared, endless atomic.Int64
	for name, c := range map[string]struct {
		feed, permanent bool
		says            string
		answer          http.HandlerFunc
	}{
		"a page for people with status 200, for a feed": {feed: true, says: `not a feed`, answer: says(errorPage)},
		"a page for people with status 200":             {says: `not a head; it begins with "<!DOCTYPE html>`, answer: says(errorPage)},
		"an empty feed":                                 {feed: true, says: "not a feed", answer: says("")},
		"an empty head":                                 {says: "not a head, it is empty", answer: says("\n\n")},
		"half a feed":                                   {feed: true, says: "not a feed: XML syntax error", answer: says(`<feed xmlns="http://www.w3.org/2005/Atom"><entry>`)},
		"another kind of feed":                          {feed: true, says: "not a feed", answer: says(`<rss version="2.0"><channel/></rss>`)},
		"somebody else's feed":                          {feed: true, says: "2 entries hold no signed line", answer: says(foreignFeed)},
		"a feed that grows":                             {feed: true, says: "not a feed: XML syntax error", answer: says(bomb)},
		"a head with more in it":                        {says: "not a head", answer: says(line("head", 1) + "\nand more\n")},
		"a head of many lines":                          {says: "not a head", answer: says(strings.Repeat(line("head", 1)+"\n", 17))},
		"a head of 5 GB that says so":                   {says: "it is 5000000000 bytes long, a head has 65536 at most", answer: sends(&declared, "5000000000")},
		"a head that goes on and on":                    {says: "it goes on after 65536 bytes", answer: sends(&endless, "")},
		"not found":                                     {says: `the server says "404 Not Found": is the address right`, answer: refuses(404)},
		"not for us":                                    {permanent: true, says: `"401 Unauthorized": see user and password_file`, answer: refuses(401, "WWW-Authenticate", "Basic realm=x")},
		"out of order":                                  {says: `the server says "500 Internal Server Error"`, answer: refuses(500)},
		"nothing has changed, at first":                 {says: `the server says "304 Not Modified"`, answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }},
		"more fields than anybody wants":                {says: "server response headers exceeded", answer: refuses(200, "X-Large", strings.Repeat("x", 100_000))},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			places := poll.Places{Head: server.URL + "/{module}"}
			if c.feed {
				places = poll.Places{Feed: server.URL + "/{module}"}
			}
			mirror := open(t, transports.Mirror, mirrorConf(places), transports.Env{})
			err := mirror.ends()
			if err == nil || !strings.Contains(err.Error(), c.says) || transports.IsPermanent(err) != c.permanent || strings.Contains(err.Error(), "\n") {
				t.Errorf("Run returned %v", err)
			}
			if mirror.connected > 0 || len(mirror.got) > 0 || mirror.Counters()["cannot_tell"] != 1 {
				t.Errorf("connected %d times, got %q, counted %v", mirror.connected, mirror.got, mirror.Counters())
			}
			mirror.notes("cannot tell since 20")
		})
	}
	if declared.Load() > 8<<20 || endless.Load() > 8<<20 { // what the buffers between two sockets hold
		t.Errorf("%d and %d bytes were sent of what is too large", declared.Load(), endless.Load())
	}
}

// TestRedirects: a few steps are followed, a circle and a long way are not, nor one that leaves TLS; the password stays where it belongs.
func TestRedirects(t *testing.T) {
	var told atomic.Value
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told.Store(r.Header.Get("Authorization"))
		says(line("head", 7))(w, r)
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
	mux.HandleFunc("/far/{n}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"x?token=secret", http.StatusFound)
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]string{"/circle": "a loop", "/far/x": "after 5 steps"} {
		mirror := open(t, transports.Mirror, mirrorConf(poll.Places{Head: server.URL + path}), transports.Env{})
		if err := mirror.ends(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: Run returned %v", path, err)
		}
	}
	secure := httptest.NewTLSServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600))
	conf := mirrorConf(poll.Places{Head: secure.URL})
	conf.CA = config.Path(ca)
	if err := open(t, transports.Mirror, conf, transports.Env{}).ends(); err == nil || !strings.Contains(err.Error(), "it leads from https to http://") {
		t.Errorf("out of TLS: Run returned %v", err)
	}
	conf = mirrorConf(poll.Places{Head: server.URL + "/away"})
	conf.User, conf.Password = "mirror", config.NewSecret("open sesame")
	mirror := open(t, transports.Mirror, conf, transports.Env{})
	mirror.runs(fedora)
	mirror.has(head(7))
	if told.Load() != "" {
		t.Errorf("another server was told %q", told.Load())
	}
}

// TestServersAreLeftAlone: for as long as they ask.
func TestServersAreLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		next   time.Duration // of the next look, at least
	}{
		"Retry-After": {refuses(503, "Retry-After", "1800"), 29 * time.Minute},
		"too often":   {refuses(429, "Retry-After", "1800"), 29 * time.Minute},
		"for ever":    {refuses(503, "Retry-After", "999999999"), 59 * time.Minute},
		"a date":      {refuses(503, "Retry-After", time.Now().Add(30*time.Minute).UTC().Format(http.TimeFormat)), 29 * time.Minute},
		"max-age": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=3600")
			w.Header().Set("Age", "1800")
			says(line("head", 1))(w, r)
		}, 29 * time.Minute},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				c.answer(w, r)
			}))
			defer server.Close()
			conf := mirrorConf(poll.Places{Head: server.URL})
			conf.EveryMax = config.Duration{Duration: 40 * time.Minute}
			mirror := open(t, transports.Mirror, conf, transports.Env{})
			if name == "max-age" {
				mirror.runs(fedora)()
			} else if mirror.ends() == nil {
				t.Error("Run returned nil")
			}
			_, at, _ := strings.Cut(mirror.Notes()[0], "next look ")
			next, err := time.Parse(time.RFC3339, at)
			must(t, err)
			if time.Until(next) < c.next || time.Until(next) > time.Hour+time.Minute || asked.Load() != 1 {
				t.Errorf("asked %d times, the next look is in %v", asked.Load(), time.Until(next))
			}
		})
	}
}

// TestSilentServer: a server that says nothing is given up in time, and does not hold up another place.
func TestSilentServer(t *testing.T) {
	over := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(over)
	good := httptest.NewServer(says(line("head", 1)))
	defer good.Close()
	conf := mirrorConf(poll.Places{Head: silent.URL})
	conf.Timeout = milliseconds(200)
	if err := open(t, transports.Mirror, conf, transports.Env{}).ends(); err == nil || !strings.Contains(err.Error(), "no answer within 200ms (timeout)") {
		t.Errorf("Run returned %v", err)
	}
	conf.Feed, conf.Head, conf.Timeout = silent.URL, good.URL, milliseconds(3000)
	mirror := open(t, transports.Mirror, conf, transports.Env{})
	mirror.runs(fedora)
	mirror.has(head(1))
	mirror.notes("feed " + silent.URL + ": cannot tell since")
	mirror.notes("head " + good.URL + ": looked")
}

// TestCertificates: who shows one that nobody we know vouches for is not believed, and it is said what would help.
func TestCertificates(t *testing.T) {
	ours, theirs := testenv.NewAuthority(t), testenv.NewAuthority(t)
	cert := ours.Issue("master", 2*time.Hour, "127.0.0.1")
	conf := masterConf(t)
	conf.Cert, conf.Key = config.Path(cert.Cert), config.Path(cert.Key)
	openMaster(t, conf).publish(head(1))
	url := "https://" + conf.Listen + "/{module}/head"
	for ca, want := range map[string]string{"": "see ca_file", theirs.File: "see ca_file"} {
		c := mirrorConf(poll.Places{Head: url})
		c.CA = config.Path(ca)
		if err := open(t, transports.Mirror, c, transports.Env{}).ends(); err == nil || !strings.Contains(err.Error(), want) || !transports.IsPermanent(err) {
			t.Errorf("authority %q: Run returned %v", ca, err)
		}
	}
	c := mirrorConf(poll.Places{Head: url})
	c.CA = config.Path(ours.File)
	mirror := open(t, transports.Mirror, c, transports.Env{})
	mirror.runs(fedora)
	mirror.has(head(1))
	c.Head = strings.Replace(url, "127.0.0.1", "localhost", 1)
	if err := open(t, transports.Mirror, c, transports.Env{}).ends(); err == nil || !strings.Contains(err.Error(), "localhost") || !transports.IsPermanent(err) {
		t.Errorf("another name: Run returned %v", err)
	}
}

// TestConfigFaults: each names the key, and what to do about it.
func TestConfigFaults(t *testing.T) {
	zone := func(change func(*poll.DNSConfig)) *poll.DNSConfig {
		c := poll.DefaultMasterConfig().DNS
		c.Zone, c.Server, c.Key, c.Secret = "example.org", "127.0.0.1:53", "mirrorbus", config.NewSecret(base64.StdEncoding.EncodeToString([]byte("secret")))
		change(&c)
		return &c
	}
	mirror := func(change func(*poll.MirrorConfig)) *poll.MirrorConfig {
		c := mirrorConf(poll.Places{Feed: "https://master.example.org/{module}/feed.atom"})
		change(c)
		return c
	}
	master := func(change func(*poll.MasterConfig)) *poll.MasterConfig {
		c := poll.DefaultMasterConfig()
		c.Listen = "127.0.0.1:8480"
		change(c)
		return c
	}
	for _, c := range []struct {
		conf config.Validator
		says string
	}{
		{master(func(*poll.MasterConfig) {}), ""},
		{master(func(c *poll.MasterConfig) { c.Listen = "" }), "listen"},
		{master(func(c *poll.MasterConfig) { c.Listen = "8480" }), "no host and port"},
		{master(func(c *poll.MasterConfig) { c.Cert = "/x" }), "belong together"},
		{master(func(c *poll.MasterConfig) { c.Cert, c.Key = "/no/x", "/no/y" }), "no such file"},
		{master(func(c *poll.MasterConfig) { c.URL = "ftp://x" }), "no URL of the web"},
		{master(func(c *poll.MasterConfig) { c.Entries = 0 }), "entries"},
		{master(func(c *poll.MasterConfig) { c.Entries = 201 }), "entries"},
		{zone(func(*poll.DNSConfig) {}), ""},
		{zone(func(c *poll.DNSConfig) { c.Zone = "" }), "zone"},
		{zone(func(c *poll.DNSConfig) { c.Server = "ns1" }), "server"},
		{zone(func(c *poll.DNSConfig) { c.Key = "" }), "key"},
		{zone(func(c *poll.DNSConfig) { c.Secret = config.NewSecret("???") }), "base64"},
		{zone(func(c *poll.DNSConfig) { c.Algorithm = "hmac-md5" }), "algorithm"},
		{zone(func(c *poll.DNSConfig) { c.TTL = milliseconds(10) }), "ttl"},
		{mirror(func(*poll.MirrorConfig) {}), ""},
		{mirror(func(c *poll.MirrorConfig) { c.Feed = "" }), "feed"},
		{mirror(func(c *poll.MirrorConfig) { c.Feed = "master.example.org/feed" }), "no URL of the web"},
		{mirror(func(c *poll.MirrorConfig) { c.Head = "https://me:secret@master.example.org/head" }), "holds a user or a password"},
		{mirror(func(c *poll.MirrorConfig) { c.DNS = "not a zone" }), "no domain name"},
		{mirror(func(c *poll.MirrorConfig) { c.Modules = []poll.ModulePlaces{{Places: poll.Places{DNS: "example.org"}}} }), "name"},
		{mirror(func(c *poll.MirrorConfig) { c.User = "me" }), "belong together"},
		{mirror(func(c *poll.MirrorConfig) {
			c.User, c.Password, c.Head = "me", config.NewSecret("x"), "http://master.example.org/head"
		}), "to everybody on the way"},
		{mirror(func(c *poll.MirrorConfig) { c.EveryMax = milliseconds(1) }), "every_min"},
		{mirror(func(c *poll.MirrorConfig) { c.Timeout = milliseconds(1) }), "timeout"},
		{mirror(func(c *poll.MirrorConfig) { c.DNSServer = "ns1" }), "dns_server"},
	} {
		err := c.conf.Validate()
		if (c.says == "") != (err == nil) || !strings.Contains(fmt.Sprint(err), c.says) || strings.Contains(fmt.Sprint(err), "me:secret") {
			t.Errorf("want %q, got %v", c.says, err)
		}
	}
}

// TestModulesAreToldApart: one address cannot be that of two modules, and a module without one is named.
func TestModulesAreToldApart(t *testing.T) {
	debian := transports.Topic{Kind: transports.Announce, Module: "debian"}
	for want, places := range map[string]poll.Places{
		"write {module} where the name of the module belongs": {Head: "http://127.0.0.1:1/head"},
		"is no domain name": {DNS: strings.Repeat("long.", 49) + "org"},
	} {
		mirror := open(t, transports.Mirror, mirrorConf(places), transports.Env{})
		err := mirror.Run(t.Context(), []transports.Subscription{{Topic: fedora}, {Topic: debian}}, mirror)
		if err == nil || !strings.Contains(err.Error(), want) || !transports.IsPermanent(err) {
			t.Errorf("Run returned %v", err)
		}
	}
	conf := mirrorConf(poll.Places{})
	conf.Modules = []poll.ModulePlaces{{Name: "debian", Places: poll.Places{Head: "http://127.0.0.1:1/head"}}}
	if err := open(t, transports.Mirror, conf, transports.Env{}).ends(); err == nil || !strings.Contains(err.Error(), "module fedora has no place to look at") {
		t.Errorf("Run returned %v", err)
	}
}
