package trigger_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// client serves a hub's control socket until the test ends.
func (m *master) client(h *trigger.Hub) *control.Client {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), "s")
	l, err := control.Listen(path)
	check(m.t, err)
	run(m.t, func(ctx context.Context) error { return control.Serve(ctx, l, h.Handler()) })
	return control.NewClient(path)
}

func TestCommands(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	c := m.client(h)
	one := m.mirror("one", "")
	m.write("a", "caf\xe9")
	var done trigger.Published
	check(t, c.Do(t.Context(), "POST", "/v1/publish", request("a", "caf\xe9"), &done))
	if done.Serial != 1 || !done.Relaying || done.Records != 2 {
		t.Errorf("published %+v", done)
	}
	one.hears("change 1")
	one.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 1, Outcome: event.Applied, Serial: 1, Applied: 1})
	m.shows(h, "one current 0")
	var s trigger.Status
	check(t, c.Do(t.Context(), "GET", "/v1/status", nil, &s))
	if !s.Running || s.Name != "master" || s.Modules[0].Serial != 1 || !s.Transports[0].Connected {
		t.Errorf("status %+v", s)
	}
	var log []trigger.LogEntry
	check(t, c.Do(t.Context(), "GET", "/v1/log?module=m&n=5", nil, &log))
	if len(log) != 1 || log[0].Records != 2 {
		t.Errorf("log %+v", log)
	}
	var built trigger.Building
	check(t, c.Stream(t.Context(), "POST", "/v1/manifest?module=m", func(raw json.RawMessage) error { return json.Unmarshal(raw, &built) }))
	if !built.Done || built.Entries != 3 {
		t.Errorf("built %+v", built)
	}
	check(t, c.Do(t.Context(), "POST", "/v1/forget", "one", nil))
	m.shows(h)
}

// Whoever asked for a walk may give up in the middle of it. The manifest that this leaves unfinished is built all the same.
func TestAWalkThatNobodyWaitsForIsDoneAgain(t *testing.T) {
	m := newMaster(t)
	m.conf.HeadEvery = config.Duration{Duration: 20 * time.Millisecond}
	m.write("a", "b")
	h, _ := m.start()
	c := m.client(h)
	names := func() int64 {
		var s trigger.Status
		check(t, c.Do(t.Context(), "GET", "/v1/status", nil, &s))
		return s.Modules[0].Entries
	}
	whole := func() error {
		if n := names(); n != 3 { // with the directory that holds them
			return fmt.Errorf("%d names in the manifest", n)
		}
		return nil
	}
	testenv.WaitFor(t, 10*time.Second, whole)
	ctx, giveUp := context.WithCancel(t.Context())
	w := &leaver{ResponseRecorder: httptest.NewRecorder(), leave: giveUp}
	h.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/v1/manifest?module=m", nil))
	if w.writes == 0 {
		t.Fatal("the walk was not begun")
	}
	testenv.WaitFor(t, 10*time.Second, whole)
}

// A leaver is a client that goes away at the first word.
type leaver struct {
	*httptest.ResponseRecorder
	leave  func()
	writes int
}

func (l *leaver) Write(b []byte) (int, error) {
	l.leave()
	l.writes++
	return l.ResponseRecorder.Write(b)
}

func TestCommandsRefuse(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	c := m.client(h)
	wait := func(q string) error {
		return c.Each(t.Context(), "/v1/wait?"+q, func(raw json.RawMessage) error { return fmt.Errorf("it sends %s", raw) })
	}
	faultOf(t, "before the first", wait("module=m&serial=0&count=0"), fault.Usage, "nothing of m is announced yet")
	m.publish(h, "a")
	unknown := request("a")
	unknown.Module = "n"
	for name, c := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"publish: module":  {c.Do(t.Context(), "POST", "/v1/publish", unknown, nil), fault.Usage, `module "n" is not one of this master's`},
		"publish: path":    {c.Do(t.Context(), "POST", "/v1/publish", request("b"), nil), fault.Usage, `path "b": does not exist in the module`},
		"publish: body":    {c.Do(t.Context(), "POST", "/v1/publish", map[string]int{"x": 1}, nil), fault.Usage, `read request: json: unknown field "x"`},
		"log: module":      {c.Do(t.Context(), "GET", "/v1/log?module=n&n=5", nil, nil), fault.Usage, `module "n"`},
		"log: no number":   {c.Do(t.Context(), "GET", "/v1/log?module=m", nil, nil), fault.Usage, `n="": must be a number from 0`},
		"log: below":       {c.Do(t.Context(), "GET", "/v1/log?module=m&n=-1", nil, nil), fault.Usage, `n="-1": must be a number from 0`},
		"forget: unknown":  {c.Do(t.Context(), "POST", "/v1/forget", "nobody", nil), fault.Usage, "forget mirror nobody: no mirror of that name"},
		"manifest: module": {c.Stream(t.Context(), "POST", "/v1/manifest?module=n", nil), fault.Usage, `module "n"`},
		"wait: module":     {wait("module=n&serial=1&count=0"), fault.Usage, `module "n"`},
		"wait: count":      {wait("module=m&serial=1&count=-2"), fault.Usage, `count="-2"`},
		"wait: serial":     {wait("module=m&serial=x&count=0"), fault.Usage, "serial: "},
		"wait: future":     {wait("module=m&serial=2&count=0"), fault.Usage, "serial 2 of m is not announced yet, the newest is 1"},
		"wait: epoch":      {wait("module=m&serial=1&count=0&epoch=ffffffff"), fault.TryAgain, "module m has begun a new epoch"},
	} {
		faultOf(t, name, c.err, c.status, c.text)
	}
}

// faultOf checks an error that came over the socket.
func faultOf(t *testing.T, name string, err error, status int, text string) {
	t.Helper()
	if err == nil || len(err.Error()) < len(text) || err.Error()[:len(text)] != text || fault.StatusOf(err) != status {
		t.Errorf("%s: %v, status %d; want %q, status %d", name, err, fault.StatusOf(err), text, status)
	}
}

// Wait sends how far it is whenever a mirror has said something, and ends when enough have the serial.
func TestWait(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	c := m.client(h)
	one, two := m.mirror("one", ""), m.mirror("two", "")
	have := event.Report{Module: "m", Epoch: "00000000", Run: 1, Outcome: event.Have}
	one.says(have)
	two.says(have)
	m.shows(h, "one behind 0", "two behind 0")
	done := m.publish(h, "a")
	m.publish(h, "b")
	for _, count := range []string{"1", "0"} {
		steps := make(chan trigger.Progress, 100)
		ended := make(chan error, 1)
		go func() {
			ended <- c.Each(t.Context(), "/v1/wait?module=m&serial=1&epoch="+string(done.Epoch)+"&count="+count, func(raw json.RawMessage) error {
				var p trigger.Progress
				err := json.Unmarshal(raw, &p)
				steps <- p
				return err
			})
		}()
		if p := <-steps; p.Done || p.Want != 2 || p.Serial != 1 {
			t.Errorf("first of --wait=%s: %+v", count, p)
		}
		// A batch up to serial 2 covers serial 1.
		speaker := map[string]*mirror{"1": one, "0": two}[count]
		speaker.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 2, Outcome: event.Applied, Serial: 2, Applied: 2})
		check(t, <-ended)
		close(steps)
		var last trigger.Progress
		for last = range steps {
			if last.Elapsed <= 0 {
				t.Errorf("no time has passed: %+v", last)
			}
		}
		if !last.Done {
			t.Errorf("last of --wait=%s: %+v", count, last)
		}
	}
}

// Who no longer listens ends the wait.
func TestWaitEndsWithItsReader(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	c := m.client(h)
	m.publish(h, "a")
	ctx, cancel := context.WithCancel(t.Context())
	gone := errors.New("gone")
	err := c.Each(ctx, "/v1/wait?module=m&serial=0&count=1", func(json.RawMessage) error {
		cancel()
		return gone
	})
	if !errors.Is(err, gone) {
		t.Errorf("ended with %v", err)
	} // and goleak sees that nothing is left of it on the hub's side
}
