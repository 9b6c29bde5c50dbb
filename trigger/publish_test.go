package trigger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// request asks for names as the command line takes them.
func request(names ...string) trigger.Request {
	all := make([]trigger.Name, len(names))
	for i, n := range names {
		all[i] = trigger.ParseName(n)
	}
	return trigger.NewRequest("m", all)
}

func (m *master) publisher(now time.Time) (*trigger.Publisher, *trigger.Parts) {
	parts, _ := m.open()
	return &trigger.Publisher{Journal: parts.Journal, Modules: m.conf.Modules, Now: func() time.Time { return now }}, parts
}

func TestPublishJournals(t *testing.T) {
	m := newMaster(t)
	m.write("a", "d/b")
	p, parts := m.publisher(time.Now())
	r := request("a", "-gone")
	r.Source = "compose"
	done, err := p.Publish(t.Context(), r)
	check(t, err)
	if done.Serial != 1 || done.Kind != event.Change || done.Records != 2 || done.Condensed || done.Relaying || done.Schema != trigger.Schema {
		t.Errorf("published %+v", done)
	}
	stored, err := parts.Journal.Latest(t.Context(), "m")
	check(t, err)
	if stored.Source != "compose" || string(stored.Line) != done.Line || !stored.Announcement.At.Equal(done.At) || stored.Announcement.Epoch != done.Epoch {
		t.Errorf("journalled %+v", stored)
	}
	log, err := p.Log(t.Context(), "m", 10)
	check(t, err)
	if len(log) != 1 || log[0].Source != "compose" || log[0].Records != 2 || log[0].Line != done.Line {
		t.Errorf("the log says %+v", log)
	}
}

func TestDryRunDescribesAndJournalsNothing(t *testing.T) {
	m := newMaster(t)
	m.write("a", "odd\n")
	check(t, os.Chtimes(filepath.Join(m.tree, "a"), time.Time{}, time.Unix(1_700_000_000, 0)))
	p, parts := m.publisher(time.Now())
	r := request("a", "-gone", "odd\n")
	r.DryRun = true
	done, err := p.Publish(t.Context(), r)
	check(t, err)
	var lines []string
	for _, d := range done.Set {
		lines = append(lines, d.String())
	}
	want := []string{"+ 100644            1 2023-11-14 22:13:20 a", "- gone"}
	if len(lines) != 3 || !slices.Equal(lines[:2], want) || !strings.HasSuffix(lines[2], `"odd\n"`) {
		t.Errorf("described as %q", lines)
	}
	if st, err := parts.Journal.State(t.Context(), "m"); err != nil || st.Serial != 0 || done.Serial != 0 {
		t.Errorf("a dry run has journalled: %+v, %v", st, err)
	}
	renamed := trigger.Describe(event.PathSet{{Op: event.Renamed, Path: "new", From: "old\x1b"}})[0]
	if got := renamed.String(); !strings.HasSuffix(got, ` new (was "old\x1b")`) {
		t.Errorf("a rename is described as %s", got)
	}
}

func TestPublishCondenses(t *testing.T) {
	names := []string{"top"}
	for i := range 9 {
		names = append(names, fmt.Sprint("a/x/", i), fmt.Sprint("b/y/", i))
	}
	for _, c := range []struct {
		name          string
		perDir, limit int
		want          string // the records; "" stands for no path set at all
		condensed     bool
	}{
		{"room for all", 9, 100, "", false},
		{"crowded directories", 8, 100, "d a/x, d b/y, + top", true},
		{"too many directories", 8, 2, "", true},
		{"nothing is short enough", 8, 1, "", true},
	} {
		m := newMaster(t)
		m.write(names...)
		m.conf.Modules[0].PerDirectory, m.conf.Modules[0].MaxPaths = c.perDir, c.limit
		p, _ := m.publisher(time.Now())
		r := request(names...)
		r.DryRun = true
		dry, err := p.Publish(t.Context(), r)
		check(t, err)
		var got []string
		for _, d := range dry.Set {
			got = append(got, d.Op+" "+d.Path)
		}
		if s := strings.Join(got, ", "); dry.Condensed != c.condensed || c.want != "" && s != c.want {
			t.Errorf("%s: condensed %t to %s", c.name, dry.Condensed, s)
		}
		r.DryRun = false
		done, err := p.Publish(t.Context(), r)
		check(t, err)
		log, err := p.Log(t.Context(), "m", 1)
		check(t, err)
		wantLogged := done.Records
		if c.limit < 3 { // top and two directories cannot be fewer
			wantLogged = -1
		}
		if done.Condensed != c.condensed || log[0].Records != wantLogged {
			t.Errorf("%s: published %+v, logged %+v", c.name, done, log[0])
		}
	}
}

func TestFlipWindow(t *testing.T) {
	now := time.Unix(1_800_000_000, 900_000_000)
	at := func(d time.Duration) time.Time { return now.Truncate(time.Second).Add(d) }
	for _, c := range []struct {
		name               string
		notBefore, expires time.Time
		mode               uint32
		wait, until        time.Duration
		fault              string
	}{
		{"at once, for ever", time.Time{}, time.Time{}, 0, 0, 0, ""},
		{"later", at(time.Hour), at(2 * time.Hour), 0, time.Hour, 2 * time.Hour, ""},
		{"its time is past", at(-time.Hour), at(time.Hour), 0, 0, time.Hour, ""},
		{"opened then", at(time.Hour), time.Time{}, 0o755, time.Hour, 0, ""},
		{"opened now", time.Time{}, time.Time{}, 0o755, 0, 0, "does not wait for a time to come"},
		{"open already", at(time.Hour), time.Time{}, 0o644, 0, 0, "has the permissions 0644 already"},
		{"no permissions", at(time.Hour), time.Time{}, 0o17777, 0, 0, "permissions 17777"},
		{"expires as it begins", at(time.Hour), at(time.Hour), 0, 0, 0, "before it may be applied"},
		{"has expired", time.Time{}, at(-time.Second), 0, 0, 0, "before it may be applied"},
		{"expires within the second", time.Time{}, at(400 * time.Millisecond), 0, 0, 0, "before it may be applied"},
	} {
		m := newMaster(t)
		m.write("a")
		p, parts := m.publisher(now)
		r := request("a")
		r.Flip, r.NotBefore, r.Expires, r.Mode = true, c.notBefore, c.expires, c.mode
		for _, r.DryRun = range []bool{true, false} {
			done, err := p.Publish(t.Context(), r)
			refused(t, c.name, err, fault.Usage, c.fault)
			if err == nil && done.Kind != event.Flip {
				t.Errorf("%s: a %s", c.name, done.Kind)
			}
		}
		if c.fault != "" {
			continue
		}
		a, err := parts.Journal.Latest(t.Context(), "m")
		check(t, err)
		if a.Announcement.Kind != event.Flip || a.Announcement.NotBefore != c.wait || a.Announcement.Expires != c.until {
			t.Errorf("%s: journalled %+v", c.name, a.Announcement)
		}
		if (a.Announcement.Was == 0o644) != (c.mode != 0) {
			t.Errorf("%s: it was %o", c.name, a.Announcement.Was)
		}
	}
}

// refused checks an error's text, exit status and hint; want "" means none.
func refused(t *testing.T, name string, err error, status int, want string) {
	t.Helper()
	switch {
	case want == "":
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	case err == nil || !strings.Contains(err.Error(), want):
		t.Errorf("%s: error %v, want %q in it", name, err, want)
	case fault.StatusOf(err) != status || fault.HintOf(err) == "":
		t.Errorf("%s: status %d, want %d; hint %q", name, fault.StatusOf(err), status, fault.HintOf(err))
	}
}

func TestPublishRefuses(t *testing.T) {
	flip := func(r trigger.Request) trigger.Request { r.Flip = true; return r }
	op := func(op string) trigger.Request {
		r := request("a")
		r.Names[0].Op = op
		return r
	}
	unknown, waits, expires := request("a"), request("a"), request("a")
	unknown.Module, waits.NotBefore, expires.Expires = "n", time.Now(), time.Now()
	m := newMaster(t)
	m.write("a", "d/b")
	check(t, os.Symlink("d", filepath.Join(m.tree, "link")))
	p, parts := m.publisher(time.Now())
	for name, c := range map[string]struct {
		r     trigger.Request
		fault string
	}{
		"unknown module":     {unknown, `module "n" is not one of this master's`},
		"nothing":            {request(), "nothing to announce in m"},
		"absolute":           {request("/a"), `path "/a": must be relative`},
		"dot dot":            {request("../a"), `component ".."`},
		"not there":          {request("c"), `path "c": does not exist in the module`},
		"through a link":     {request("link/b"), `path "link/b"`},
		"twice":              {request("a", "a"), `path "a": stands twice`},
		"the export":         {request(".mirrorbus/head"), "belongs to mirrorbus"},
		"a deletion flipped": {flip(request("-c")), `path "c": op - in a flip`},
		"a wait":             {waits, "only a flip can wait or expire"},
		"an expiry":          {expires, "only a flip can wait or expire"},
		"no such op":         {op("x"), "op"},
		"long op":            {op("++"), `op "++": must be one character`},
	} {
		_, err := p.Publish(t.Context(), c.r)
		refused(t, name, err, fault.Usage, c.fault)
	}
	if st, err := parts.Journal.State(t.Context(), "m"); err != nil || st.Serial != 0 {
		t.Errorf("something was announced: %+v, %v", st, err)
	}
	p.Modules = []trigger.ModuleConfig{{Name: "m", Path: config.Path(m.tree + "/nowhere")}}
	_, err := p.Publish(t.Context(), request("a"))
	refused(t, "the tree is not there", err, fault.Config, "module m: ")
}

func TestPublishAlone(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	done, err := trigger.PublishAlone(t.Context(), &m.conf, request("a"), m.logger())
	check(t, err)
	if done.Serial != 1 || done.Relaying {
		t.Errorf("published %+v", done)
	}
	s, err := trigger.StatusAlone(t.Context(), &m.conf, m.logger())
	check(t, err)
	if s.Running || len(s.Modules) != 1 || s.Modules[0].Serial != 1 || s.Modules[0].At.IsZero() {
		t.Errorf("status %+v", s)
	}
	log, err := trigger.LogAlone(t.Context(), &m.conf, "m", 5, m.logger())
	if err != nil || len(log) != 1 || log[0].Serial != 1 {
		t.Errorf("log %+v, %v", log, err)
	}
	refused(t, "forget nobody", trigger.ForgetAlone(t.Context(), &m.conf, "nobody"), fault.Usage, "no mirror of that name")
	if _, err := os.Stat(filepath.Join(m.tree, event.ExportDir, "head")); err != nil {
		t.Errorf("not exported: %v", err)
	}
}
