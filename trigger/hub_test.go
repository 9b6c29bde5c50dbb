package trigger_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// publish announces names and returns what became of it.
func (m *master) publish(h *trigger.Hub, names ...string) trigger.Published {
	m.t.Helper()
	m.write(names...)
	done, err := h.Publish(m.t.Context(), request(names...))
	check(m.t, err)
	return done
}

// status returns the status of the mirrors of the module m.
func status(t *testing.T, h *trigger.Hub) []trigger.MirrorStatus {
	t.Helper()
	s, err := h.Status(t.Context())
	check(t, err)
	return s.Modules[0].Mirrors
}

// shows waits until status shows the mirrors like this: "name state behind".
func (m *master) shows(h *trigger.Hub, want ...string) {
	m.t.Helper()
	testenv.WaitFor(m.t, bound, func() error {
		var got []string
		for _, s := range status(m.t, h) {
			got = append(got, fmt.Sprint(s.Mirror, " ", s.State, " ", s.Behind))
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("status shows %q, want %q", got, want)
		}
		return nil
	})
}

func TestAnnounceAndReport(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	one := m.mirror("one", "")
	done := m.publish(h, "a", "b")
	if !done.Relaying {
		t.Errorf("published %+v", done)
	}
	one.hears("change 1")
	one.says(event.Report{Module: "m", Epoch: "00000000", Run: 1, Outcome: event.Have})
	m.shows(h, "one behind 1")
	one.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 2, Outcome: event.Failed, Serial: 1, Error: "no \x1b space"})
	m.shows(h, "one failing 1")
	if s := status(t, h)[0]; s.Error != `no \x1b space` || s.Lag <= 0 {
		t.Errorf("failing: %+v", s)
	}
	one.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 3, Outcome: event.Applied, Serial: 1, Applied: 1, Head: one.heard[len(one.heard)-1].Digest})
	m.shows(h, "one current 0")
	if s := status(t, h)[0]; s.Error != "" || s.Lag != 0 {
		t.Errorf("current: %+v", s)
	}
	one.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 4, Outcome: event.Have, Serial: 1, Applied: 1, Head: event.Sum(nil)})
	m.shows(h, "one diverged 0")
}

// Each report here is one that must change nothing.
func TestReportsThatCountForNothing(t *testing.T) {
	m := newMaster(t)
	m.conf.Modules[0].Mirrors = []string{"one", "stranger", "master"}
	h, _ := m.start()
	done := m.publish(h, "a")
	one, two := m.mirror("one", ""), m.mirror("two", "")
	r := event.Report{Module: "m", Mirror: "one", Epoch: done.Epoch, Run: 1, Outcome: event.Applied, Serial: 1, Applied: 1}
	forged, stranger, denied, otherModule := r, r, r, r
	forged.Mirror, stranger.Mirror, denied.Mirror, otherModule.Module = "two", "stranger", "two", "n"
	damaged := slices.Clone(m.seal(r, "one"))
	damaged[len("mirrorbus1 report module=")] = 'n'
	head := event.Head{Module: "m", Epoch: done.Epoch, Serial: 1, At: time.Now(), TTL: time.Hour, Last: event.Sum(nil)}
	refusals := map[string]func(){
		"signed by another":    func() { one.sends(m.seal(forged, "one"), reports) },
		"of a stranger":        func() { one.sends(m.seal(stranger, "stranger"), reports) },
		"damaged":              func() { one.sends(damaged, reports) },
		"wrong topic":          func() { one.sends(m.seal(otherModule, "one"), reports) },
		"brought by another":   func() { two.sends(m.seal(r, "one"), reports) },
		"not of this module":   func() { two.sends(m.seal(denied, "two"), reports) },
		"no report":            func() { one.sends(m.seal(head, "one"), reports) },
		"no line":              func() { one.sends([]byte("hello\n"), reports) },
		"one line after other": func() { one.sends([]byte(strings.Repeat("x", 5000)), reports) },
	}
	for _, send := range refusals {
		send()
	}
	one.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 1, Outcome: event.Applied, Serial: 1, Applied: 1})
	m.shows(h, "one current 0")
	// The bus keeps the order of each, not of both: two's last is waited for too.
	testenv.WaitFor(t, bound, func() error {
		if n := m.log.count("report refused"); n < 6 {
			return fmt.Errorf("%d refusals are logged, want at least 6 of %d", n, len(refusals))
		}
		return nil
	})
	for i := range 50 {
		otherModule.Run = uint64(i)
		one.sends(m.seal(otherModule, "one"), reports)
	}
	one.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 2, Outcome: event.Blocked, Serial: 2, Applied: 0})
	m.shows(h, "one blocked 1")
	if n := m.log.count("report refused"); n > 8 {
		t.Errorf("%d refusals are logged", n)
	}
}

func TestResume(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	epoch := m.publish(h, "a").Epoch
	m.publish(h, "b")
	m.publish(h, "c")
	m.relayed(h) // or they come to it once more, after the backlog
	for _, c := range []struct {
		have string
		want []string
	}{
		{string(epoch) + ":0", []string{"change 1", "change 2", "change 3", "head 3"}},
		{string(epoch) + ":2", []string{"change 3", "head 3"}},
		{string(epoch) + ":3", []string{"head 3"}},
		{string(epoch) + ":9", []string{"head 3"}},
		{"ffffffff:1", []string{"head 3"}},
		{"00000000:0", []string{"head 3"}},
		{"nonsense", []string{"head 3"}},
	} {
		x := m.mirror("at-"+strings.ReplaceAll(c.have, ":", "-"), c.have)
		x.hears("head 3")
		if got := x.said(); !slices.Equal(got, c.want) {
			t.Errorf("at %s it hears %q, want %q", c.have, got, c.want)
		}
	}
}

// What the journal has no longer, and what is more than a mirror should be told one by one, it reads through rsync.
func TestResumeOfOneFarBehind(t *testing.T) {
	m := newMaster(t)
	m.conf.Modules[0].KeepSerials, m.conf.Modules[0].ManifestEvery = 2, config.Duration{Duration: time.Nanosecond}
	h, _ := m.start()
	epoch := m.publish(h, "a").Epoch
	for range 5 {
		m.publish(h, "a")
	}
	env := m.env(h)
	testenv.WaitFor(t, bound, func() error { // until the journal is trimmed
		var got []string
		for msg, err := range env.Backlog(t.Context(), announcements, string(epoch)+":1") {
			check(t, err)
			got = append(got, msg.ID)
		}
		if len(got) != 1 || !strings.HasPrefix(got[0], string(epoch)+".6.head.") {
			return fmt.Errorf("the backlog is %q", got)
		}
		return nil
	})
	for msg, err := range env.Backlog(t.Context(), reports, "") {
		t.Errorf("of reports there is a backlog: %+v, %v", msg, err)
	}
}

func (m *master) env(h *trigger.Hub) transports.Env { return h.Env(m.keys["master"]) }

// A path set that does not fit the transport is left out, in the backlog as in the outbox.
func TestLargePathSets(t *testing.T) {
	m := newMaster(t)
	m.caps.MaxBody = 600
	h, _ := m.start()
	before := m.mirror("one", "")
	var names []string
	for i := range 40 {
		names = append(names, event.Sum([]byte{byte(i)}).String())
	}
	epoch := m.publish(h, names...).Epoch
	before.hears("bare 1")
	after := m.mirror("two", string(epoch)+":0")
	after.hears("bare 1", "head 1")
}

func TestHeadsAreSentAgain(t *testing.T) {
	m := newMaster(t)
	m.conf.HeadEvery = config.Duration{Duration: 20 * time.Millisecond}
	h, _ := m.start()
	one := m.mirror("one", "")
	one.hears("head 0", "head 0", "head 0")
	m.publish(h, "a")
	one.hears("head 1", "head 1", "head 1")
}

// Where mirrors come and look they find the head that belongs to an announcement; to others it is not sent before it is due.
func TestHeadIsShownWithEachAnnouncement(t *testing.T) {
	for _, polled := range []bool{true, false} {
		m := newMaster(t)
		m.caps.Polled = polled
		h, stop := m.start()
		one := m.mirror("one", "")
		for n, name := range []string{"a", "b", "c"} { // when one has come, the head of that before it would have
			m.publish(h, name)
			testenv.WaitFor(t, bound, func() error {
				got := one.said()
				if !slices.Contains(got, fmt.Sprint("change ", n+1)) || polled && !slices.Contains(got, fmt.Sprint("head ", n+1)) {
					return fmt.Errorf("polled = %v: it heard %q", polled, got)
				}
				return nil
			})
		}
		if got := one.said(); slices.Contains(got, "head 2") && !polled {
			t.Errorf("a head that was not due was sent: %q", got)
		}
		stop()
	}
}

// What was announced while no hub ran is sent when one does, and what it had not sent when it ended.
func TestRestartSendsWhatWaits(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	_, err := trigger.PublishAlone(t.Context(), &m.conf, request("a"), m.logger())
	check(t, err)
	h, stop := m.start()
	m.mirror("one", "")
	m.bus.Stop()
	m.publish(h, "b")
	stop()
	m.bus.Start()
	one := m.mirror("one", "")
	h, _ = m.start()
	one.hears("change 2")
	m.relayed(h)
}

func TestForgottenTransport(t *testing.T) {
	m := newMaster(t)
	m.write("a")
	_, err := trigger.PublishAlone(t.Context(), &m.conf, request("a"), m.logger())
	check(t, err)
	m.conf.Transport = nil
	_, stop := m.start()
	stop()
	if n := m.log.count("dropped what waited for a transport"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	m.conf.Transport = config.Sections{"mem": &mem.Config{}}
	h, _ := m.start()
	if s, err := h.Status(t.Context()); err != nil || s.Transports[0].Waiting != 0 {
		t.Errorf("still there: %+v, %v", s.Transports, err)
	}
}

func TestPeerNames(t *testing.T) {
	m := newMaster(t)
	env := m.env(m.hub())
	for _, name := range []string{"one", "two"} {
		if got, err := env.PeerName(m.keys[name].PublicKey()); err != nil || got != name {
			t.Errorf("the key of %s is that of %q, %v", name, got, err)
		}
	}
	if got, err := env.PeerName(m.keys["stranger"].PublicKey()); err == nil {
		t.Errorf("a stranger is called %q", got)
	}
}

func TestAllowed(t *testing.T) {
	m := newMaster(t)
	m.conf.Modules = append(m.conf.Modules, trigger.ModuleConfig{Name: "closed", Path: config.Path(t.TempDir()), Mirrors: []string{"one", "tier1-*"}})
	m.validate()
	env := m.env(m.hub())
	for _, c := range []struct {
		peer      string
		kind      transports.Kind
		module    string
		subscribe bool
		want      bool
	}{
		{"two", transports.Announce, "m", true, true},
		{"two", transports.Report, "m", false, true},
		{"two", transports.Announce, "m", false, false},
		{"two", transports.Report, "m", true, false},
		{"two", transports.Announce, "closed", true, false},
		{"two", transports.Report, "closed", false, false},
		{"one", transports.Announce, "closed", true, true},
		{"tier1-de", transports.Report, "closed", false, true},
		{"one", transports.Announce, "unknown", true, false},
	} {
		if err := env.Allowed(c.peer, transports.Topic{Kind: c.kind, Module: c.module}, c.subscribe); (err == nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
