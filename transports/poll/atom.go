package poll

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/transports/words"
)

// The feed is Atom (RFC 4287). The three structs below are all that is needed of it: what libraries offer is for making feeds of articles, and none of them says
// what becomes of a byte of the content on its way through XML, which is all that matters here.

// The names in feeds.
const (
	atomSpace = "http://www.w3.org/2005/Atom"
	ourSpace  = "urn:mirrorbus:poll:1"                // of the element head
	mediaType = "application/vnd.mirrorbus.announce"  // of content that is no plain line, in base64 as RFC 4287 section 4.1.3.3 says
	feedType  = "application/atom+xml; charset=utf-8" // of a feed as a whole
	headType  = "text/plain; charset=utf-8"           // of a head
	feedFile  = "feed.atom"
	headFile  = "head"
)

// An outFeed is a feed to be written.
type outFeed struct {
	XMLName   xml.Name   `xml:"http://www.w3.org/2005/Atom feed"`
	ID        string     `xml:"id"`
	Title     string     `xml:"title"`
	Subtitle  string     `xml:"subtitle"`
	Updated   string     `xml:"updated"`
	Author    string     `xml:"author>name"`
	Generator string     `xml:"generator"`
	Links     []outLink  `xml:"link"`
	Head      string     `xml:"urn:mirrorbus:poll:1 head,omitempty"`
	Entries   []outEntry `xml:"entry"`
}

type outLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type outEntry struct {
	ID        string     `xml:"id"`
	Title     string     `xml:"title"`
	Updated   string     `xml:"updated"`
	Published string     `xml:"published"`
	Links     []outLink  `xml:"link"`
	Summary   string     `xml:"summary"`
	Content   outContent `xml:"content"`
}

type outContent struct {
	Type string `xml:"type,attr"`
	Text string `xml:",chardata"`
}

// feed writes the feed of a module, the newest entry first. at is the address of its folder, "" if it is not known: then links are relative.
func (h *history) feed(module, self, at string, now time.Time) ([]byte, error) {
	if at != "" {
		at = strings.TrimSuffix(at, "/") + "/" + module + "/"
	}
	f := outFeed{
		ID: identify("feed", module), Title: module + ": changes", Author: self, Generator: "mirrorbus", Updated: stamp(now),
		Subtitle: "What " + self + " has announced of " + module + ". The content of each entry is a signed line, on which the agents of mirrors act.",
		Links:    []outLink{{Rel: "self", Type: feedType, Href: at + feedFile}, {Rel: "alternate", Href: at + headFile}}, // with a type that is no HTML readers leave it out
	}
	if words.IsLine(h.head.Body) {
		f.Head = string(h.head.Body)
	}
	for _, a := range slices.Backward(h.Announcements) {
		f.Entries = append(f.Entries, a.entry(module, at))
	}
	switch {
	case h.head.Body != nil:
		f.Updated = stamp(h.head.At)
	case len(h.Announcements) > 0:
		f.Updated = stamp(h.Announcements[len(h.Announcements)-1].At)
	}
	text, err := xml.MarshalIndent(f, "", " ")
	if err != nil {
		return nil, fmt.Errorf("feed of module %s: %w", module, err)
	}
	return slices.Concat([]byte(xml.Header), text, []byte("\n")), nil
}

func (a announcement) entry(module, at string) outEntry {
	said := words.Of(a.Body)
	when := stamp(a.At)
	if t, err := time.Parse(time.RFC3339, said["at"]); err == nil {
		when = stamp(t)
	}
	title, summary := gist(module, said)
	e := outEntry{
		ID: identify(module, a.ID), Title: title, Summary: summary, Updated: when, Published: when,
		Links: []outLink{{Rel: "alternate", Href: at + headFile}}, // with a type that is no HTML readers leave it out
	}
	if words.IsLine(a.Body) && a.Body[len(a.Body)-1] != ' ' {
		e.Content = outContent{Type: "text", Text: string(a.Body)}
	} else {
		e.Content = outContent{Type: mediaType, Text: base64.StdEncoding.EncodeToString(a.Body)}
	}
	return e
}

// gist is what people read of an announcement.
func gist(module string, said map[string]string) (title, summary string) {
	switch said[""] {
	case "change":
		switch {
		case said["set"] == "-":
			title = fmt.Sprintf("%s %s: changed", module, said["serial"])
		case said["n"] == "1":
			title = fmt.Sprintf("%s %s: 1 path changed", module, said["serial"])
		default:
			title = fmt.Sprintf("%s %s: %s paths changed", module, said["serial"], said["n"])
		}
	case "flip":
		title = fmt.Sprintf("%s %s: a release shows itself", module, said["serial"])
	default:
		return module + ": announcement", "An announcement for the agents of mirrors."
	}
	return title, fmt.Sprintf("Serial %s of epoch %s. Which paths it is about stands in .mirrorbus/ of the module.", said["serial"], said["epoch"])
}

// identify makes an identifier (RFC 9562, version 8) of a name: the same for as long as the name is, wherever the feed is moved to.
func identify(parts ...string) string {
	sum := sha256.Sum256([]byte("mirrorbus\x00" + strings.Join(parts, "\x00")))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// An inFeed is a feed that was read. Only what is asked for is taken; all else in it is for people.
type inFeed struct {
	XMLName xml.Name  `xml:"http://www.w3.org/2005/Atom feed"`
	Head    string    `xml:"urn:mirrorbus:poll:1 head"`
	Entries []inEntry `xml:"http://www.w3.org/2005/Atom entry"`
}

type inEntry struct {
	Content struct {
		Type string `xml:"type,attr"`
		Text string `xml:",chardata"`
	} `xml:"http://www.w3.org/2005/Atom content"`
}

// readFeed reads a feed: its announcements, the oldest first, then the head. foreign is how many entries are somebody else's.
func readFeed(text []byte) (bodies [][]byte, foreign int, err error) {
	var f inFeed
	if err := xml.Unmarshal(text, &f); err != nil {
		return nil, 0, fmt.Errorf("this is not a feed: %w; it begins with %.60q", err, text)
	}
	for _, e := range slices.Backward(f.Entries) {
		if body := e.body(); body != nil {
			bodies = append(bodies, body)
		} else {
			foreign++
		}
	}
	if head := bytes.TrimSpace([]byte(f.Head)); words.IsLine(head) {
		bodies = append(bodies, head)
	}
	if foreign > 0 && len(bodies) == 0 {
		return nil, foreign, fmt.Errorf("this is somebody else's feed: %d entries hold no signed line", foreign)
	}
	return bodies, foreign, nil
}

// body is the message in an entry, nil if there is none.
func (e inEntry) body() []byte {
	text := strings.TrimSpace(e.Content.Text)
	if e.Content.Type == mediaType {
		body, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(body) == 0 || len(body) > maxBody {
			return nil
		}
		return body
	}
	if (e.Content.Type == "" || e.Content.Type == "text") && words.IsLine([]byte(text)) {
		return []byte(text)
	}
	return nil
}

// maxLines is how many lines a head may hold: more than one while the file is being exchanged for another, say.
const maxLines = 16

// readHead reads what a web server has under the name of a head: one signed line, or a few.
func readHead(text []byte) (bodies [][]byte, err error) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			continue
		}
		if !words.IsLine(line) || len(bodies) == maxLines {
			return nil, fmt.Errorf("this is not a head; it begins with %.60q", text)
		}
		bodies = append(bodies, line)
	}
	if len(bodies) == 0 {
		return nil, errors.New("this is not a head, it is empty")
	}
	return bodies, nil
}
