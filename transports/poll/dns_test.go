package poll_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/poll"
)

// zoneConf is the configuration of a master that only changes a zone.
func zoneConf(n *testenv.Named) *poll.MasterConfig {
	c := poll.DefaultMasterConfig()
	c.DNS.Zone, c.DNS.Server, c.DNS.Key, c.DNS.Secret = n.Zone, n.Addr(), n.Key, config.NewSecret(n.Secret)
	c.DNS.TTL = milliseconds(1000)
	return c
}

// zoneMirror is the configuration of a mirror that only asks for names.
func zoneMirror(n *testenv.Named) *poll.MirrorConfig {
	c := mirrorConf(poll.Places{DNS: n.Zone})
	c.DNSServer = n.Addr()
	return c
}

// txt is a TXT record for a zone file.
func txt(name string, strings ...string) string {
	record := name + " TXT"
	for _, s := range strings {
		record += fmt.Sprintf(" %q", s)
	}
	return record
}

// TestHeadsGoThroughTheDNS: a master changes its zone, a mirror finds the head, and the next one; nothing but heads goes there.
func TestHeadsGoThroughTheDNS(t *testing.T) {
	server := testenv.StartNamed(t, "mirrors.test")
	master := openMaster(t, zoneConf(server))
	master.publish(change(1), head(1))
	master.await("sent", func() bool { return master.Counters()["dns_updates"] == 1 })
	mirror := open(t, transports.Mirror, zoneMirror(server), transports.Env{})
	mirror.runs(fedora)
	mirror.has(head(1))
	mirror.notes("dns _mirrorbus.fedora.mirrors.test: looked 20")
	master.publish(change(2), head(2))
	mirror.has(head(2))
	mirror.mu.Lock()
	defer mirror.mu.Unlock()
	if slices.Contains(mirror.got, line("change", 2)) {
		t.Error("an announcement is in the DNS")
	}
	if n := master.Notes(); len(n) > 0 {
		t.Errorf("the master notes %q", n)
	}
}

// TestUpdatesThatAreRefused: each is said with the setting to look at, and tried again; the head is there as soon as the server takes it.
func TestUpdatesThatAreRefused(t *testing.T) {
	server := testenv.StartNamed(t, "mirrors.test")
	for want, change := range map[string]func(*poll.DNSConfig){
		"does not take our signature: BADSIG": func(c *poll.DNSConfig) {
			c.Secret = config.NewSecret(base64.StdEncoding.EncodeToString([]byte("another")))
		},
		"does not take our signature: BADKEY": func(c *poll.DNSConfig) { c.Key = "nobody" },
		"NOTAUTH":                             func(c *poll.DNSConfig) { c.Zone = "others.test" },
		"connection refused":                  func(c *poll.DNSConfig) { c.Server = fmt.Sprint("127.0.0.1:", testenv.FreePort(t)) },
	} {
		conf := zoneConf(server)
		change(&conf.DNS)
		master := openMaster(t, conf)
		master.publish(head(1))
		master.notes("DNS: head of fedora not updated since 20")
		master.notes(want)
		if strings.Contains(master.log.String()+strings.Join(master.Notes(), ""), conf.DNS.Secret.Reveal()) {
			t.Error("the secret is shown")
		}
	}
	server.Stop()
	master := openMaster(t, zoneConf(server))
	master.publish(head(1), head(2))
	master.notes("connection refused")
	server.Start()
	master.await("sent", func() bool { return master.Counters()["dns_updates"] > 0 && len(master.Notes()) == 0 })
	mirror := open(t, transports.Mirror, zoneMirror(server), transports.Env{})
	mirror.runs(fedora)
	mirror.has(head(2))
}

// TestWhatStandsUnderAName: lines in strings of any length are put together, beside records of others; an answer that was cut off is asked for by TCP; what is
// no line is no news.
func TestWhatStandsUnderAName(t *testing.T) {
	cut := func(text string, sizes ...int) (all []string) {
		for _, n := range sizes {
			n = min(n, len(text))
			all, text = append(all, text[:n]), text[n:]
		}
		return append(all, text)
	}
	server := testenv.StartNamed(t, "mirrors.test",
		txt("_mirrorbus.fedora", cut(line("head", 1), 255)...),
		txt("_mirrorbus.long", cut(line("head", 2), 1, 100, 200)...),
		txt("_mirrorbus.long", cut(line("head", 3), 255)...),
		txt("_mirrorbus.long", "v=spf1 -all"),
		"_mirrorbus.alias CNAME _mirrorbus.fedora",
		txt("_mirrorbus.junk", "v=spf1 -all"), txt("_mirrorbus.junk", errorPage[:15]), `_mirrorbus.junk TXT "\000\255\034"`,
		"_mirrorbus.none SRV 0 0 80 ns",
	)
	for module, want := range map[string][]string{
		"fedora": {line("head", 1)}, "long": {line("head", 2), line("head", 3)}, "alias": {line("head", 1)},
	} {
		mirror := open(t, transports.Mirror, zoneMirror(server), transports.Env{})
		mirror.runs(transports.Topic{Kind: transports.Announce, Module: module})
		mirror.await("has all of "+module, func() bool {
			got := slices.Sorted(slices.Values(mirror.got))
			return slices.Equal(got, want)
		})
		if module == "long" && mirror.Counters()["foreign"] == 0 {
			t.Error("a record of others is not counted")
		}
	}
	for module, want := range map[string]string{
		"junk": "3 TXT records, and none of them is a signed line", "none": "no TXT record of that name: NOERROR", "missing": "no TXT record of that name: NXDOMAIN",
	} {
		mirror := open(t, transports.Mirror, zoneMirror(server), transports.Env{})
		err := mirror.Run(t.Context(), []transports.Subscription{{Topic: transports.Topic{Kind: transports.Announce, Module: module}}}, mirror)
		if err == nil || !strings.Contains(err.Error(), want) || len(mirror.got) > 0 {
			t.Errorf("%s: Run returned %v, got %q", module, err, mirror.got)
		}
	}
}

// TestNameServerThatSaysNothing: it is given up in time; and one that answers another question, or nonsense, is not believed.
func TestNameServerThatSaysNothing(t *testing.T) {
	for name, answer := range map[string]func([]byte) []byte{
		"silent":           func([]byte) []byte { return nil },
		"nonsense":         func(q []byte) []byte { return append(slices.Clone(q[:2]), "nonsense, and more of it"...) },
		"another question": func(q []byte) []byte { return another(q) },
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			l, err := net.ListenPacket("udp", "127.0.0.1:0")
			must(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for b := make([]byte, 4096); ; {
					n, from, err := l.ReadFrom(b)
					if err != nil {
						return
					}
					if a := answer(b[:n]); a != nil {
						l.WriteTo(a, from) //nolint:errcheck // the client may have gone
					}
				}
			}()
			conf := mirrorConf(poll.Places{DNS: "mirrors.test"})
			conf.DNSServer, conf.Timeout = l.LocalAddr().String(), milliseconds(400)
			mirror := open(t, transports.Mirror, conf, transports.Env{})
			if err := mirror.ends(); err == nil || len(mirror.got) > 0 {
				t.Errorf("Run returned %v, got %q", err, mirror.got)
			}
			must(t, l.Close())
			<-done
		})
	}
}

// TestAskingEndsAtOnce: who waits for a name server does not wait for its time to be over.
func TestAskingEndsAtOnce(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	conf := mirrorConf(poll.Places{DNS: "mirrors.test"})
	conf.DNSServer, conf.Timeout = l.LocalAddr().String(), milliseconds(300_000)
	mirror := open(t, transports.Mirror, conf, transports.Env{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mirror.Run(ctx, []transports.Subscription{{Topic: fedora}}, mirror) }()
	must(t, l.SetReadDeadline(time.Now().Add(bound)))
	_, _, err = l.ReadFrom(make([]byte, 4096))
	must(t, err)
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(bound):
		t.Error("Run goes on")
	}
	must(t, l.Close())
}

// another turns a question into the answer to another one.
func another(q []byte) []byte {
	a := slices.Clone(q)
	a[2] |= 0x80                            // an answer
	a[12+1] = 'x'                           // the first letter of the name
	a[10], a[11] = 0, 0                     // no additional records
	end := 12 + slices.Index(a[12:], 0) + 5 // behind name, type and class
	return a[:end]
}

// TestDoctor: what works is good, what does not is bad and says why; nothing is changed.
func TestDoctor(t *testing.T) {
	server := testenv.StartNamed(t, "mirrors.test")
	examine := poll.Driver().Examine
	master, folder := zoneConf(server), t.TempDir()
	master.Listen, master.Write = masterConf(t).Listen, config.Path(folder)
	openMaster(t, master).publish(change(1), head(1))
	mirror := zoneMirror(server)
	mirror.Feed, mirror.Head = feedOf(master), "http://"+master.Listen+"/{module}/none"
	testenv.WaitFor(t, bound, func() error {
		for _, f := range examine(t.Context(), transports.Mirror, mirror, transports.Env{Modules: []string{"fedora"}}) {
			good := strings.Contains(f.What, "feed http://") || strings.Contains(f.What, "dns _mirrorbus.fedora")
			if good != (f.Level == transports.LevelGood) || good != (f.Err == nil) {
				return fmt.Errorf("%+v", f)
			}
		}
		return nil
	})
	for _, f := range examine(t.Context(), transports.Master, master, transports.Env{}) {
		if f.Level != transports.LevelGood {
			t.Errorf("%+v", f)
		}
	}
	master.DNS.Key, master.Write = "nobody", "/nowhere"
	found := examine(t.Context(), transports.Master, master, transports.Env{})
	if len(found) != 3 || found[1].Level != transports.LevelBad || found[2].Level != transports.LevelBad || !strings.Contains(found[2].Err.Error(), "BADKEY") {
		t.Errorf("%+v", found)
	}
}
