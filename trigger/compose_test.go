package trigger_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/trigger"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

func composing(limit trigger.Seconds) trigger.ComposeRequest {
	return trigger.ComposeRequest{Module: "m", Limit: limit, Who: "alice", Note: "a push"}
}

// records are the path set of the newest announcement: "+ a".
func records(t *testing.T, j *journal.Journal) string {
	t.Helper()
	a, err := j.Latest(t.Context(), "m")
	check(t, err)
	if a.Set == nil {
		return "anything"
	}
	set, err := envelope.PathSet(a.Set, a.Announcement.Set)
	check(t, err)
	var all []string
	for _, r := range set {
		one := string(rune(r.Op)) + " " + r.Path
		if r.From != "" {
			one += " < " + r.From
		}
		all = append(all, one)
	}
	return strings.Join(all, ", ")
}

// What is published in a compose is announced once, at its end, as it is then. Flips pass.
func TestComposeGathers(t *testing.T) {
	for _, how := range []journal.Ending{journal.Committed, journal.Aborted} {
		m := newMaster(t)
		m.write("a", "b", "d/x", "dir/x", "gone", "kept/x", "seen")
		p, parts := m.publisher(time.Now())
		c, err := p.Begin(t.Context(), composing(60))
		check(t, err)
		if !c.Open || c.Until.Sub(c.Began) != time.Minute || c.Who != "alice" || c.Note != "a push" || c.Schema != trigger.Schema {
			t.Errorf("begun %+v", c)
		}
		publish := func(names ...string) {
			t.Helper()
			done, err := p.Publish(t.Context(), request(names...))
			check(t, err)
			if done.Serial != 0 || !done.Held.Equal(c.Until.Truncate(time.Millisecond)) || done.Records != len(names) || done.Line != "" {
				t.Errorf("published %+v", done)
			}
		}
		publish("a", "+d", "gone")
		check(t, os.Remove(filepath.Join(m.tree, "gone")))
		check(t, os.RemoveAll(filepath.Join(m.tree, "kept")))
		publish("a", "-kept/x", "b")
		check(t, os.Rename(filepath.Join(m.tree, "b"), filepath.Join(m.tree, "c")))
		publish("c", "d/x", "dir", "-back/old")
		m.write("kept/x", "kept/y", "back/old/new") // what was gone is there again
		_, err = p.Publish(t.Context(), request("nowhere"))
		refused(t, "a name that is not there", err, fault.Usage, "does not exist")

		r := request("seen")
		r.Flip = true
		flip, err := p.Publish(t.Context(), r)
		check(t, err)
		if flip.Serial != 1 || !flip.Held.IsZero() {
			t.Errorf("a flip is held: %+v", flip)
		}
		dry := request("a")
		dry.DryRun = true
		if done, err := p.Publish(t.Context(), dry); err != nil || len(done.Set) != 1 || !done.Held.IsZero() {
			t.Errorf("a dry run: %+v, %v", done, err)
		}
		if c, err = p.Compose(t.Context(), "m"); err != nil || c.Names != 9 || !c.Open {
			t.Errorf("under way: %+v, %v", c, err)
		}

		done, err := p.End(t.Context(), "m", how)
		check(t, err)
		// kept/x is a file, so it is told by itself
		if got, want := records(t, parts.Journal), "+ a, - b, r back/old, + c, + d, + d/x, r dir, - gone, + kept/x"; got != want || done.Serial != 2 || done.Records != 9 || done.Kind != event.Change {
			t.Errorf("%s: announced %q as %+v, want %q", how, got, done, want)
		}
		if c, err = p.Compose(t.Context(), "m"); err != nil || c.Open || c.Ended != how || c.Names != 0 {
			t.Errorf("afterwards: %+v, %v", c, err)
		}
		log, err := p.Log(t.Context(), "m", 1)
		if err != nil || log[0].Source != "compose "+string(how) || log[0].Principal != "alice" {
			t.Errorf("the log says %+v, %v", log, err)
		}
		if done, err := p.Publish(t.Context(), request("a")); err != nil || done.Serial != 3 {
			t.Errorf("published afterwards: %+v, %v", done, err)
		}
	}
}

// A compose in which nothing was published, or nothing that mirrors take, ends without an announcement.
func TestComposeOfNothing(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	p, parts := m.publisher(time.Now())
	for _, names := range [][]string{nil, {"a"}} {
		_, err := p.Begin(t.Context(), composing(60))
		check(t, err)
		if names != nil {
			_, err = p.Publish(t.Context(), request(names...))
			check(t, err)
			check(t, os.Remove(filepath.Join(m.tree, "a")))
			mkfifo(t, filepath.Join(m.tree, "a"))
		}
		done, err := p.End(t.Context(), "m", journal.Committed)
		if st, stErr := parts.Journal.State(t.Context(), "m"); err != nil || done.Serial != 0 || stErr != nil || st.Serial != 0 || !st.Hold.IsZero() {
			t.Errorf("%q: ended as %+v, %v; %+v, %v", names, done, err, st, stErr)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	p, _ := m.publisher(time.Now())
	begin := func(change func(*trigger.ComposeRequest)) error {
		r := composing(60)
		change(&r)
		_, err := p.Begin(t.Context(), r)
		return err
	}
	end := func() error {
		_, err := p.End(t.Context(), "m", journal.Committed)
		return err
	}
	_, status := p.Compose(t.Context(), "n")
	refused(t, "commit without begin", end(), fault.Usage, "module m: no compose is under way")
	refused(t, "extend without begin", begin(func(r *trigger.ComposeRequest) { r.Extend = true }), fault.Usage, "no compose is under way")
	refused(t, "status of an unknown module", status, fault.Usage, `module "n"`)
	for name, c := range map[string]struct {
		change func(*trigger.ComposeRequest)
		fault  string
	}{
		"unknown module":    {func(r *trigger.ComposeRequest) { r.Module = "n" }, `module "n"`},
		"no limit":          {func(r *trigger.ComposeRequest) { r.Limit = 0 }, "limit of 0s"},
		"a limit below":     {func(r *trigger.ComposeRequest) { r.Limit = -5 }, "limit of -5s"},
		"over a day":        {func(r *trigger.ComposeRequest) { r.Limit = 86401 }, "limit of 24h0m1s for a compose: must be from 1s to 24h0m0s"},
		"over all":          {func(r *trigger.ComposeRequest) { r.Limit = 1 << 62 }, "for a compose: must be"},
		"a long note":       {func(r *trigger.ComposeRequest) { r.Note = strings.Repeat("x", 201) }, "note of a compose: at most 200 bytes"},
		"a note in control": {func(r *trigger.ComposeRequest) { r.Note = "\x1b[2J" }, "is not printable"},
		"who, in no UTF-8":  {func(r *trigger.ComposeRequest) { r.Who = "\xff" }, "who of a compose"},
	} {
		refused(t, name, begin(c.change), fault.Usage, c.fault)
	}
	check(t, begin(func(*trigger.ComposeRequest) {}))
	refused(t, "begin twice", begin(func(r *trigger.ComposeRequest) { r.Who = "bob" }), fault.TryAgain, "module m: a compose is under way already, since ")
	err := begin(func(*trigger.ComposeRequest) {})
	if !strings.HasSuffix(err.Error(), " by alice: a push") {
		t.Errorf("it does not say whose: %v", err)
	}
	check(t, begin(func(r *trigger.ComposeRequest) { r.Extend, r.Limit = true, 3600 }))
	check(t, end())
	refused(t, "commit twice", end(), fault.Usage, "no compose is under way")
}

// A compose that cannot be announced stays, with all that it has gathered.
func TestComposeThatCannotBeAnnounced(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	p, _ := m.publisher(time.Now())
	_, err := p.Begin(t.Context(), composing(60))
	check(t, err)
	_, err = p.Publish(t.Context(), request("a"))
	check(t, err)
	check(t, os.Rename(m.tree, m.tree+".away"))
	_, err = p.End(t.Context(), "m", journal.Committed)
	refused(t, "the tree is away", err, fault.Config, "module m: ")
	if c, err := p.Compose(t.Context(), "m"); err != nil || !c.Open || c.Names != 1 {
		t.Errorf("then it is %+v, %v", c, err)
	}
	check(t, os.Rename(m.tree+".away", m.tree))
	if done, err := p.End(t.Context(), "m", journal.Committed); err != nil || done.Records != 1 {
		t.Errorf("and %+v, %v", done, err)
	}
}

// When its time is over a compose ends by itself, and whoever comes late is told.
func TestComposeOverItsTime(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	now := time.Now()
	p, parts := m.publisher(now)
	p.Now = func() time.Time { return now }
	c, err := p.Begin(t.Context(), composing(60))
	check(t, err)
	_, err = p.Publish(t.Context(), request("a"))
	check(t, err)
	now = c.Until.Add(-time.Millisecond)
	if _, _, ended, err := p.Overdue(t.Context(), "m"); err != nil || ended {
		t.Errorf("too early: %t, %v", ended, err)
	}
	now = c.Until
	last, done, ended, err := p.Overdue(t.Context(), "m")
	if err != nil || !ended || done.Serial != 1 || last.Who != "alice" || records(t, parts.Journal) != "+ a" {
		t.Errorf("ended %t as %+v of %+v, %v", ended, done, last, err)
	}
	if _, _, ended, err := p.Overdue(t.Context(), "m"); err != nil || ended {
		t.Errorf("once more: %t, %v", ended, err)
	}
	_, err = p.End(t.Context(), "m", journal.Committed)
	refused(t, "a late commit", err, fault.Failed, "was over its time, and ended at ")
}

// Names that were true of the tree once are announced as they are now.
func TestResolveFound(t *testing.T) {
	m := newMaster(t)
	m.write("file", "dir/x", "new/x", "still/x", "real/x")
	check(t, os.Symlink("real", filepath.Join(m.tree, "link")))
	mkfifo(t, filepath.Join(m.tree, "pipe"))
	p, parts := m.publisher(time.Now())
	for name, c := range map[string]struct {
		names []trigger.Name
		want  string
	}{
		"as it is":                      {[]trigger.Name{{Path: "file"}, {Path: "dir"}, {Path: "link"}}, "+ dir, + file, + link"},
		"gone":                          {[]trigger.Name{{Path: "away"}, {Op: event.Meta, Path: "away too"}, {Op: event.Tree, Path: "a/b/c"}}, "- a, - away, - away too"},
		"gone, and there again":         {[]trigger.Name{{Op: event.Gone, Path: "file"}, {Op: event.Gone, Path: "dir"}}, "+ dir, + file"},
		"a directory no more":           {[]trigger.Name{{Op: event.Level, Path: "file"}, {Path: "file/x"}}, "+ file"},
		"a directory is as it was said": {[]trigger.Name{{Op: event.Write, Path: "dir"}, {Op: event.Level, Path: "new"}, {Op: event.Meta, Path: "still"}}, "+ dir, d new, = still"},
		"renamed":                       {[]trigger.Name{{Op: event.Renamed, Path: "new", From: "old"}, {Op: event.Gone, Path: "old"}}, "> new < old"},
		"renamed, and the old is back":  {[]trigger.Name{{Op: event.Renamed, Path: "new", From: "still"}, {Op: event.Gone, Path: "still"}}, "r new, r still"},
		"renamed, and gone":             {[]trigger.Name{{Op: event.Renamed, Path: "newer", From: "old"}}, "- newer"},
		"what mirrors do not take":      {[]trigger.Name{{Path: "pipe"}, {Path: "file"}}, "+ file"},
	} {
		r := trigger.NewRequest("m", c.names)
		r.AsFound = true
		_, err := p.Publish(t.Context(), r)
		check(t, err)
		if got := records(t, parts.Journal); strings.ReplaceAll(got, "- old, ", "") != c.want && strings.ReplaceAll(got, ", - old", "") != c.want {
			t.Errorf("%s: announced %q, want %q", name, got, c.want)
		}
	}
	bad := trigger.NewRequest("m", []trigger.Name{{Path: "../x"}, {Path: "link/x"}})
	bad.AsFound = true
	if done, err := p.Publish(t.Context(), bad); err != nil || done.Serial != 0 || done.LeftOut != 2 {
		t.Errorf("out of the module, and behind a link: %+v, %v", done, err)
	}
}

// The hub tells mirrors by heads, and ends a compose that nobody ends.
func TestHubTellsOfComposes(t *testing.T) {
	m := newMaster(t)
	h, stop := m.start()
	one := m.mirror("one", "")
	c := m.client(h)
	var begun trigger.Compose
	check(t, c.Do(t.Context(), "POST", "/v1/compose/begin", composing(3600), &begun))
	if head := exportedHead(t, m); head.Hold < 3590*time.Second || head.Hold > time.Hour {
		t.Errorf("when begin returns the exported head says %v", head.Hold)
	}
	one.holds(true)
	m.write("a")
	var done trigger.Published
	check(t, c.Do(t.Context(), "POST", "/v1/publish", request("a"), &done))
	if done.Held.IsZero() || done.Serial != 0 || !done.Relaying {
		t.Errorf("published %+v", done)
	}
	if got := asks(t, h, "sync m a", transports.MayCommand, false); !strings.HasPrefix(got, "m: 1 path, announced when the compose under way ends, at ") {
		t.Errorf("by IRC: %q", got)
	}
	faultOf(t, "begin twice", c.Do(t.Context(), "POST", "/v1/compose/begin", composing(5), nil), fault.TryAgain, "module m: a compose is under way already, since ")
	s, err := h.Status(t.Context())
	check(t, err)
	if got := s.Modules[0].Compose; got == nil || !got.Open || got.Names != 1 {
		t.Errorf("status tells of %+v", got)
	}
	stop() // and it is so after a restart
	h, _ = m.start()
	c = m.client(h)
	if head := exportedHead(t, m); head.Hold == 0 {
		t.Error("after a restart the exported head does not tell")
	}
	one.holds(true)
	check(t, c.Do(t.Context(), "POST", "/v1/compose/end", trigger.ComposeRequest{Module: "m"}, &done))
	if done.Serial != 1 || done.Records != 1 {
		t.Errorf("ended as %+v", done)
	}
	one.hears("change 1")
	one.holds(false)
	check(t, c.Do(t.Context(), "GET", "/v1/compose?module=m", nil, &begun))
	if begun.Open || begun.Ended != journal.Committed {
		t.Errorf("afterwards %+v", begun)
	}

	check(t, c.Do(t.Context(), "POST", "/v1/compose/begin", composing(1), nil))
	check(t, c.Do(t.Context(), "POST", "/v1/publish", request("a"), nil))
	one.hears("change 2")
	one.holds(false)
	testenv.WaitFor(t, bound, func() error {
		if n := m.log.count("a compose is over its time"); n != 1 {
			return fmt.Errorf("it is said %d times", n)
		}
		return nil
	})
	if s, err = h.Status(t.Context()); err != nil || s.Modules[0].Compose == nil || s.Modules[0].Compose.Ended != journal.Overran {
		t.Errorf("status tells of %+v, %v", s.Modules[0].Compose, err)
	}
	check(t, c.Do(t.Context(), "POST", "/v1/compose/begin", composing(60), nil))
	check(t, c.Do(t.Context(), "POST", "/v1/compose/end", trigger.ComposeRequest{Module: "m", Abort: true}, &done))
	one.holds(false)
	if s, err = h.Status(t.Context()); err != nil || s.Modules[0].Compose != nil {
		t.Errorf("status tells of %+v, %v", s.Modules[0].Compose, err)
	}
}

// Who connects in the middle of a compose hears of it before it hears of what is to wait.
func TestResumeInACompose(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	epoch := m.publish(h, "a").Epoch
	m.publish(h, "b")
	_, err := h.Begin(t.Context(), composing(60))
	check(t, err)
	m.relayed(h)
	one := m.mirror("one", string(epoch)+":0")
	one.hears("head 2", "change 1", "change 2")
	_, err = h.End(t.Context(), "m", journal.Committed)
	check(t, err)
	one.holds(false)
	two := m.mirror("two", string(epoch)+":1")
	two.hears("change 2", "head 2")
}

// Without a hub composes begin, gather, end and are over their time all the same.
func TestComposeAlone(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	log := m.logger()
	_, err := trigger.BeginAlone(t.Context(), &m.conf, composing(3600), log)
	check(t, err)
	if head := exportedHead(t, m); head.Hold == 0 {
		t.Error("the exported head does not tell")
	}
	done, err := trigger.PublishAlone(t.Context(), &m.conf, request("a"), log)
	if err != nil || done.Held.IsZero() {
		t.Errorf("published %+v, %v", done, err)
	}
	c, err := trigger.ComposeAlone(t.Context(), &m.conf, "m", log)
	if err != nil || !c.Open || c.Names != 1 {
		t.Errorf("under way: %+v, %v", c, err)
	}
	done, err = trigger.EndAlone(t.Context(), &m.conf, "m", journal.Committed, log)
	if err != nil || done.Serial != 1 || done.Relaying {
		t.Errorf("ended as %+v, %v", done, err)
	}
	if head := exportedHead(t, m); head.Hold != 0 || head.Serial != 1 {
		t.Errorf("the exported head says %+v", head)
	}
	_, err = trigger.EndAlone(t.Context(), &m.conf, "n", journal.Committed, log)
	refused(t, "unknown module", err, fault.Usage, `module "n"`)
	_, err = trigger.BeginAlone(t.Context(), &m.conf, composing(1), log)
	check(t, err)
	testenv.WaitFor(t, bound, func() error {
		c, err := trigger.ComposeAlone(t.Context(), &m.conf, "m", log)
		if err == nil && c.Open {
			err = errors.New("it is under way")
		}
		return err
	})
	if n := m.log.count("a compose is over its time"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	check(t, syscall.Mkfifo(path, 0o644))
}

func exportedHead(t *testing.T, m *master) event.Head {
	t.Helper()
	line, err := os.ReadFile(filepath.Join(m.tree, event.ExportDir, "head"))
	check(t, err)
	s, err := event.Read(line[:len(line)-1])
	check(t, err)
	return *s.Head
}

// holds waits until the newest head that came says that a compose is under way, or that none is.
func (x *mirror) holds(want bool) {
	x.m.t.Helper()
	testenv.WaitFor(x.m.t, bound, func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, s := range slices.Backward(x.heard) {
			if s.Head != nil && (s.Head.Hold > 0) == want {
				return nil
			}
			if s.Head != nil {
				break
			}
		}
		return fmt.Errorf("%s has no head that holds %t", x.name, want)
	})
}
