package poll

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

const someLine = "mirrorbus1 change module=fedora epoch=7c1e9f02 serial=1042 at=2026-11-20T19:02:11Z n=1482 set=S prev=P key=K sig=S"

// FuzzReadFeed: whatever a server sends is read or refused, within bounds; and what is read has its bytes when it is written and read again.
func FuzzReadFeed(f *testing.F) {
	h := &history{head: announcement{Body: []byte("mirrorbus1 head module=fedora epoch=1 serial=1")}}
	for i, body := range []string{someLine, someLine + " x=<&>\"'", "\x00\xff\r\n", " " + someLine, someLine + " "} {
		h.add(transports.Message{ID: string(rune('a' + i)), Body: []byte(body)}, time.Unix(0, 0), 10)
	}
	text, err := h.feed("fedora", "master", "", time.Unix(0, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("<!DOCTYPE html><html></html>"))
	f.Add([]byte(`<feed xmlns="http://www.w3.org/2005/Atom"><entry><content type="application/vnd.mirrorbus.announce">AAAA</content></entry></feed>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > maxDocument {
			return
		}
		bodies, _, err := readFeed(text)
		if err != nil {
			return
		}
		again := &history{}
		var want [][]byte
		for i, b := range bodies {
			if len(b) == 0 || len(b) > maxBody {
				t.Fatalf("a body of %d bytes", len(b))
			}
			if !isHead(b) && i < 100 {
				again.Announcements = append(again.Announcements, announcement{ID: "x", Body: b})
				want = append(want, b)
			}
		}
		written, err := again.feed("fedora", "master", "https://a.test", time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		got, foreign, err := readFeed(written)
		if err != nil || foreign > 0 || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%q became %q, %d foreign, %v, by\n%s", want, got, foreign, err, written)
		}
	})
}

func FuzzReadHead(f *testing.F) {
	f.Add([]byte(someLine + "\n"))
	f.Add([]byte(someLine + "\r\n\n" + someLine))
	f.Add([]byte("<!DOCTYPE html>"))
	f.Fuzz(func(t *testing.T, text []byte) {
		bodies, err := readHead(text)
		if (err == nil) != (len(bodies) > 0) || len(bodies) > maxLines {
			t.Errorf("%d bodies, %v", len(bodies), err)
		}
		for _, b := range bodies {
			if !words.IsLine(b) || !bytes.Contains(text, b) {
				t.Errorf("body %q", b)
			}
		}
	})
}

// FuzzRecord: an answer of a name server is read or refused; a line has its bytes after its way through a record.
func FuzzRecord(f *testing.F) {
	add := func(strings ...string) {
		m := new(dns.Msg)
		m.SetQuestion("_mirrorbus.fedora.test.", dns.TypeTXT)
		m.Response = true
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "_mirrorbus.fedora.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 5}, Txt: strings}}
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed)
	}
	add(stringsOf(someLine)...)
	add(stringsOf(someLine + ` x="\` + strings.Repeat("y", 600))...)
	add("v=spf1")
	f.Fuzz(func(t *testing.T, packed []byte) {
		m := new(dns.Msg)
		if m.Unpack(packed) != nil {
			return
		}
		s, err := (&record{name: "_mirrorbus.fedora.test."}).see(m)
		if (err == nil) != (len(s.bodies) > 0) || len(s.bodies) > maxRecords {
			t.Fatalf("%d bodies, %v", len(s.bodies), err)
		}
		for _, b := range s.bodies {
			if !words.IsLine(b) {
				t.Fatalf("body %q", b)
			}
			m := new(dns.Msg)
			m.SetQuestion("a.test.", dns.TypeTXT)
			m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "a.test.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: stringsOf(string(b))}}
			packed, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			again := new(dns.Msg)
			if err := again.Unpack(packed); err != nil {
				t.Fatal(err)
			}
			if got := lineOf(again.Answer[0].(*dns.TXT).Txt); !bytes.Equal(got, b) {
				t.Errorf("%q became %q", b, got)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for module, want := range map[string]string{
		"fedora": "_mirrorbus.fedora.example.org.", "fedora.x": "_mirrorbus.fedora.x.example.org.", "a..b": "", "a.": "", "x_y-z": "_mirrorbus.x_y-z.example.org.",
	} {
		got, err := nameOf(module, "Example.org")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", module, got, err)
		}
	}
}
