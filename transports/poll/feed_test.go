package poll_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/poll"
)

// get asks a web server as a browser does.
func get(t *testing.T, url string, fields ...string) *http.Response {
	t.Helper()
	ask, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	for i := 0; i < len(fields); i += 2 {
		ask.Header.Set(fields[i], fields[i+1])
	}
	answer, err := http.DefaultClient.Do(ask)
	must(t, err)
	t.Cleanup(func() {
		if err := answer.Body.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return answer
}

// TestFeedBringsWhatIsAnnounced: the oldest first, the head last, each once, whatever comes between; a head alone brings the head.
func TestFeedBringsWhatIsAnnounced(t *testing.T) {
	conf := masterConf(t)
	master := openMaster(t, conf)
	master.publish(change(1), change(2), head(2))
	mirror, second := openMirror(t, poll.Places{Feed: feedOf(conf)}), openMirror(t, poll.Places{Head: headOf(conf)})
	mirror.has(head(2))
	master.publish(change(3), head(3))
	mirror.has(head(3))
	second.has(head(3))
	want := []string{line("change", 1), line("change", 2), line("head", 2), line("change", 3)}
	mirror.mu.Lock()
	defer mirror.mu.Unlock()
	if got := slices.DeleteFunc(slices.Clone(mirror.got), func(s string) bool { return s == line("head", 3) }); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	second.mu.Lock()
	defer second.mu.Unlock()
	if slices.Contains(second.got, line("change", 3)) {
		t.Error("a head holds announcements")
	}
}

// TestNothingNewIsNotSentAgain: the second answer is 304, and holds nothing.
func TestNothingNewIsNotSentAgain(t *testing.T) {
	conf := masterConf(t)
	master := openMaster(t, conf)
	master.publish(change(1), head(1))
	mirror := openMirror(t, poll.Places{Feed: feedOf(conf)})
	mirror.await("told that nothing is new", func() bool { return mirror.Counters()["unchanged"] > 1 })
	mirror.notes("fedora, feed http://" + conf.Listen + "/fedora/feed.atom: looked 20")
	for _, name := range []string{"feed.atom", "head"} {
		url := "http://" + conf.Listen + "/fedora/" + name
		first := get(t, url)
		if first.StatusCode != http.StatusOK || first.Header.Get("ETag") == "" || first.Header.Get("Last-Modified") == "" ||
			first.Header.Get("Cache-Control") != "max-age=0" {
			t.Errorf("%s: %s, %v", name, first.Status, first.Header)
		}
		for field, value := range map[string]string{"If-None-Match": first.Header.Get("ETag"), "If-Modified-Since": first.Header.Get("Last-Modified")} {
			if again := get(t, url, field, value); again.StatusCode != http.StatusNotModified || again.ContentLength > 0 {
				t.Errorf("%s, %s: %s", name, field, again.Status)
			}
		}
	}
	for _, other := range []string{"/", "/fedora/", "/debian/head", "/fedora/../head"} {
		if a := get(t, "http://"+conf.Listen+other); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", other, a.Status)
		}
	}
}

// TestRefusedIsFoundAgain: what the receiver could not take is handed on again, though the server would say that nothing has changed.
func TestRefusedIsFoundAgain(t *testing.T) {
	conf := masterConf(t)
	openMaster(t, conf).publish(change(1), change(2))
	testenv.WaitFor(t, bound, func() error { // until the server would notice a change
		was, err := http.ParseTime(get(t, "http://"+conf.Listen+"/fedora/feed.atom").Header.Get("Last-Modified"))
		if err == nil && time.Since(was) < 4*time.Second {
			err = errors.New("it has just changed")
		}
		return err
	})
	mirror := open(t, transports.Mirror, mirrorConf(poll.Places{Feed: feedOf(conf)}), transports.Env{})
	mirror.refuses = errors.New("disk full")
	if err := mirror.ends(); !errors.Is(err, mirror.refuses) {
		t.Fatalf("Run returned %v", err)
	}
	mirror.refuses = nil
	mirror.runs(fedora)
	mirror.has(change(1))
	mirror.has(change(2))
}

// marks are bookmarks in memory.
type marks map[string]string

func (m marks) Bookmark(_ context.Context, name string) (string, error) { return m[name], nil }
func (m marks) SetBookmark(_ context.Context, name, text string) error {
	m[name] = text
	return nil
}

// TestFeedIsThereAfterARestart: with what was announced before, in the same words, and without what belongs to another epoch.
func TestFeedIsThereAfterARestart(t *testing.T) {
	conf, kept := masterConf(t), marks{}
	reports := transports.Topic{Kind: transports.Report, Module: "fedora"}
	conf.Entries = 2
	before := open(t, transports.Master, conf, transports.Env{Bookmarks: kept})
	before.publish(change(1), change(2), change(3), change(2))
	after := open(t, transports.Master, conf, transports.Env{Bookmarks: kept})
	after.runs(reports)
	mirror := openMirror(t, poll.Places{Feed: feedOf(conf)})
	mirror.has(change(2))
	mirror.has(change(3))
	other := change(1)
	other.ID, other.Body = "00000001.1", []byte(strings.Replace(line("change", 1), "7c1e9f02", "00000001", 1))
	after.publish(other)
	mirror.has(other)
	text, err := io.ReadAll(get(t, "http://"+conf.Listen+"/fedora/feed.atom").Body)
	must(t, err)
	if strings.Contains(string(text), "7c1e9f02") || strings.Count(string(text), "<entry>") != 1 {
		t.Errorf("the feed is %s", text)
	}
	mirror.mu.Lock()
	defer mirror.mu.Unlock()
	if slices.Contains(mirror.got, line("change", 1)) {
		t.Error("there are more entries than entries says")
	}
}

// TestPathSetsAreNotShown: mirrors have them from their upstream.
func TestPathSetsAreNotShown(t *testing.T) {
	master := open(t, transports.Master, masterConf(t), transports.Env{})
	m := change(1)
	m.Body = append(m.Body, "\nset"...)
	if err := master.Publish(t.Context(), m); !errors.Is(err, transports.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// TestEmbargo: a module that only some mirrors may have is shown to nobody, unless the operator says so.
func TestEmbargo(t *testing.T) {
	env := transports.Env{Allowed: func(peer string, _ transports.Topic, _ bool) error {
		if peer == "" {
			return errors.New("not for everybody")
		}
		return nil
	}}
	for _, embargoed := range []bool{false, true} {
		conf := masterConf(t)
		conf.Embargoed = embargoed
		master := open(t, transports.Master, conf, env)
		master.runs(transports.Topic{Kind: transports.Report, Module: "fedora"})
		master.publish(change(1), head(1))
		want := map[bool]int{false: http.StatusNotFound, true: http.StatusOK}[embargoed]
		for _, name := range []string{"feed.atom", "head"} {
			if a := get(t, "http://"+conf.Listen+"/fedora/"+name); a.StatusCode != want {
				t.Errorf("embargoed = %v, %s: %s", embargoed, name, a.Status)
			}
		}
		if n := master.Counters()["embargoed"]; (n == 2) == embargoed {
			t.Errorf("embargoed = %v: %d counted", embargoed, n)
		}
	}
}

// TestWebServerOfAnother: nginx serves what is written, compressed too, and a head that lies in a tree.
func TestWebServerOfAnother(t *testing.T) {
	root := t.TempDir()
	server := testenv.StartNginx(t, root, "gzip on;\ngzip_min_length 1;\ngzip_types *;\ntypes { application/atom+xml atom; }")
	conf := poll.DefaultMasterConfig()
	conf.Write = "/nowhere"
	master := open(t, transports.Master, conf, transports.Env{})
	if err := master.Publish(t.Context(), change(1)); err == nil || !strings.Contains(err.Error(), "create the folder") {
		t.Errorf("a folder that is not there: %v", err)
	}
	conf.Write = config.Path(root)
	master = open(t, transports.Master, conf, transports.Env{})
	master.publish(change(1), head(1))
	feed, head1 := "http://"+server.Addr()+"/{module}/feed.atom", "http://"+server.Addr()+"/{module}/head"
	mirror, second := openMirror(t, poll.Places{Feed: feed}), openMirror(t, poll.Places{Head: head1})
	mirror.has(change(1))
	second.has(head(1))
	for _, s := range []*side{mirror, second} {
		s.await("told that nothing is new", func() bool { return s.Counters()["unchanged"] > 1 })
	}
	master.publish(change(2), head(2))
	mirror.has(change(2))
	mirror.has(head(2))
	second.has(head(2))
	left, err := filepath.Glob(filepath.Join(root, "fedora", ".*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	st, err := os.Stat(filepath.Join(root, "fedora", "head"))
	must(t, err)
	if st.Mode().Perm() != 0o644 {
		t.Errorf("the head has mode %v", st.Mode())
	}
}

// reader is what a program for people makes of a feed.
const reader = `
import feedparser, json, sys
f = feedparser.parse(sys.argv[1])
print(json.dumps({"bozo": str(f.get("bozo_exception", "")), "version": f.version, "title": f.feed.get("title"), "id": f.feed.get("id"), "entries": [
    {"id": e.id, "title": e.title, "summary": e.summary, "content": e.content[0].value, "at": e.updated_parsed is not None, "link": e.link} for e in f.entries]}, default=str))
`

// TestPeopleReadTheFeed: a real reader takes it for a feed without a fault, and shows each entry once, with the line that was signed.
func TestPeopleReadTheFeed(t *testing.T) {
	python := feedparser(t)
	conf := masterConf(t)
	conf.URL = "https://master.example.org/mirrorbus/"
	master := openMaster(t, conf)
	flip := change(3)
	flip.Body = []byte(line("flip", 3))
	odd := transports.Message{Topic: fedora, ID: "odd", Body: []byte("\x00 <a> & \xff\r\n")}
	master.publish(change(1), change(2), flip, odd, head(3))
	out, err := exec.Command(python, "-c", reader, "http://"+conf.Listen+"/fedora/feed.atom").Output()
	must(t, err)
	var f struct {
		Bozo, Version, Title, ID string
		Entries                  []struct {
			ID, Title, Summary, Content, Link string
			At                                bool
		}
	}
	must(t, json.Unmarshal(out, &f))
	if f.Bozo != "" || f.Version != "atom10" || f.Title != "fedora: changes" || !strings.HasPrefix(f.ID, "urn:uuid:") || len(f.Entries) != 4 {
		t.Fatalf("the reader says %s", out)
	}
	seen := map[string]bool{}
	for _, e := range f.Entries {
		if seen[e.ID] || !strings.HasPrefix(e.ID, "urn:uuid:") || !e.At || e.Summary == "" || e.Link != "https://master.example.org/mirrorbus/fedora/head" {
			t.Errorf("entry %+v", e)
		}
		seen[e.ID] = true
	}
	last := f.Entries[len(f.Entries)-1]
	if last.Content != line("change", 1) || last.Title != "fedora 1: 1482 paths changed" {
		t.Errorf("the oldest entry is %+v", last)
	}
	if !strings.Contains(fmt.Sprint(f.Entries), "fedora 3: a release shows itself") {
		t.Error("a flip is not told")
	}
}

// feedparser returns the Python that has it.
func feedparser(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import feedparser").Run() == nil {
			return python
		}
	}
	testenv.Missing(t, "the Python module feedparser is not installed")
	return ""
}
