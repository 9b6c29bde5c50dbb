package transports_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
)

var (
	fedora = transports.Topic{Kind: transports.Announce, Module: "fedora"}
	debian = transports.Topic{Kind: transports.Announce, Module: "debian"}
)

// fake delivers its messages, calls during, and ends with err.
type fake struct {
	deliver   []transports.Message
	during    func()
	err       error
	published []transports.Message
}

func (f *fake) Run(ctx context.Context, _ []transports.Subscription, r transports.Receiver) error {
	r.Connected()
	for _, m := range f.deliver {
		if err := r.Receive(ctx, m); err != nil {
			return err
		}
	}
	if f.during != nil {
		f.during()
	}
	return f.err
}

func (f *fake) Publish(_ context.Context, m transports.Message) error {
	f.published = append(f.published, m)
	return nil
}

type collect struct{ got []string }

func (c *collect) Connected() {}
func (c *collect) Receive(_ context.Context, m transports.Message) error {
	c.got = append(c.got, string(m.Body))
	return nil
}

func TestCheckedRefusesToPublish(t *testing.T) {
	caps := transports.Capabilities{MaxBody: 4}
	for name, c := range map[string]struct {
		m    transports.Message
		is   error
		says string
	}{
		"too large":     {transports.Message{Topic: fedora, ID: "1", Body: []byte("12345")}, transports.ErrTooLarge, "5 bytes, at most 4"},
		"empty":         {transports.Message{Topic: fedora, ID: "1"}, nil, "no body"},
		"no id":         {transports.Message{Topic: fedora, Body: []byte("x")}, nil, "message id"},
		"bad id":        {transports.Message{Topic: fedora, ID: "a b", Body: []byte("x")}, nil, "message id"},
		"unknown kind":  {transports.Message{Topic: transports.Topic{Kind: "x", Module: "fedora"}, ID: "1", Body: []byte("x")}, nil, "unknown kind"},
		"module name":   {transports.Message{Topic: transports.Topic{Kind: transports.Report, Module: "../x"}, ID: "1", Body: []byte("x")}, nil, "module name"},
		"long module":   {transports.Message{Topic: transports.Topic{Kind: transports.Report, Module: strings.Repeat("x", 61)}, ID: "1", Body: []byte("x")}, nil, "module name"},
		"trailing line": {transports.Message{Topic: transports.Topic{Kind: transports.Report, Module: "fedora\n"}, ID: "1", Body: []byte("x")}, nil, "module name"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			err := transports.Checked(f, caps, nil).Publish(t.Context(), c.m)
			if err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error is %v, want one that says %q", err, c.says)
			}
			if len(f.published) > 0 {
				t.Error("published nevertheless")
			}
		})
	}
	f := &fake{}
	if err := transports.Checked(f, caps, nil).Publish(t.Context(), transports.Message{Topic: fedora, ID: "1", Body: []byte("1234")}); err != nil || len(f.published) != 1 {
		t.Errorf("a message within the limits: %v", err)
	}
}

func TestCheckedDropsBadDeliveries(t *testing.T) {
	f := &fake{err: transports.ErrClosed, deliver: []transports.Message{
		{Topic: fedora, Body: []byte("1")},
		{Topic: fedora, Body: []byte("too long")},
		{Topic: fedora},
		{Topic: debian, Body: []byte("x")},
		{Topic: fedora, ID: "bad id", Body: []byte("x")},
		{Topic: transports.Topic{Kind: "odd"}, Body: []byte("x")},
		{Topic: fedora, ID: "good.id", Body: []byte("2")},
	}}
	var log bytes.Buffer
	c := transports.Checked(f, transports.Capabilities{MaxBody: 4}, slog.New(slog.NewTextHandler(&log, nil)))
	var r collect
	for run := range 2 {
		if err := c.Run(t.Context(), []transports.Subscription{{Topic: fedora}}, &r); !errors.Is(err, transports.ErrClosed) {
			t.Fatalf("run %d ended with %v", run, err)
		}
	}
	if got := strings.Join(r.got, " "); got != "1 2 1 2" {
		t.Errorf("received %q, want the good ones", got)
	}
	if n := strings.Count(log.String(), "message dropped"); n != 2 || c.Dropped() != 10 {
		t.Errorf("%d dropped, logged %d times; want 10, once per run:\n%s", c.Dropped(), n, &log)
	}
}

func TestCheckedRefusesASecondRun(t *testing.T) {
	f := &fake{err: transports.ErrClosed}
	c := transports.Checked(f, transports.Capabilities{}, nil)
	var second error
	f.during = func() { second = c.Run(t.Context(), nil, &collect{}) }
	if err := c.Run(t.Context(), nil, &collect{}); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("first run: %v", err)
	}
	if !errors.Is(second, transports.ErrRunning) {
		t.Errorf("second run at the same time: %v", second)
	}
	f.during = nil
	if err := c.Run(t.Context(), nil, &collect{}); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("run after the first has ended: %v", err)
	}
}

func TestCheckedRunErrorIsNeverNil(t *testing.T) {
	c := transports.Checked(&fake{}, transports.Capabilities{}, nil)
	if err := c.Run(t.Context(), nil, &collect{}); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("a transport that ends without a reason: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if err := c.Run(ctx, nil, &collect{}); !errors.Is(err, stop) {
		t.Errorf("a transport that ends with its context: %v", err)
	}
}

func TestCheckedRefusesABadSubscription(t *testing.T) {
	c := transports.Checked(&fake{}, transports.Capabilities{}, nil)
	err := c.Run(t.Context(), []transports.Subscription{{Topic: transports.Topic{Kind: transports.Announce, Module: "#"}}}, &collect{})
	if err == nil || !transports.IsPermanent(err) {
		t.Errorf("error is %v, want a permanent one", err)
	}
}

func TestRegistryOpen(t *testing.T) {
	type config struct{ Address string }
	driver := transports.Driver{
		Name:         "one-sided",
		Capabilities: func(transports.Role) transports.Capabilities { return transports.Capabilities{MaxBody: 4} },
		Master: transports.SideOf(func() *config { return &config{Address: "localhost"} }, func(c config, env transports.Env) (*fake, error) {
			if c.Address == "" {
				return nil, errors.New("address is empty")
			}
			env.Log.Info("opened")
			return &fake{}, nil
		}),
	}
	r := transports.Registry{driver}
	var log bytes.Buffer
	env := transports.Env{Log: slog.New(slog.NewTextHandler(&log, nil))}
	good, err := r.Open(transports.Master, "one-sided", driver.Config(transports.Master), env)
	if err != nil {
		t.Fatal(err)
	}
	err = good.Publish(t.Context(), transports.Message{Topic: fedora, ID: "1", Body: []byte("12345")})
	if !errors.Is(err, transports.ErrTooLarge) || !strings.Contains(log.String(), "transport=one-sided") {
		t.Errorf("publish of too much: %v, want ErrTooLarge; log: %s", err, &log)
	}
	for want, open := range map[string]func() error{
		`unknown transport "other", known are [one-sided]`: func() error {
			_, err := r.Open(transports.Master, "other", nil, env)
			return err
		},
		"transport one-sided has no mirror side": func() error {
			_, err := r.Open(transports.Mirror, "one-sided", nil, env)
			return err
		},
		"transport one-sided: address is empty": func() error {
			_, err := r.Open(transports.Master, "one-sided", &config{}, transports.Env{})
			return err
		},
	} {
		if err := open(); err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
}

// A sighted transport looks at the other side.
type sighted struct{ fake }

func (*sighted) Examine(context.Context) []transports.Finding {
	return []transports.Finding{transports.Good("it is there")}
}

func TestExamine(t *testing.T) {
	type config struct{ Name string }
	open := func(err error) func(config, transports.Env) (*sighted, error) {
		return func(config, transports.Env) (*sighted, error) { return &sighted{}, err }
	}
	fails := errors.New("no key")
	blind := func(config, transports.Env) (*fake, error) { return nil, fails }
	defaults := func() *config { return &config{} }
	for name, c := range map[string]struct {
		side transports.Side
		want string
	}{
		"it looks":                         {transports.SideOf(defaults, open(nil)), "it is there"},
		"it cannot be opened":              {transports.SideOf(defaults, open(fails)), "configuration"},
		"it does not look":                 {transports.SideOf(defaults, blind), ""},
		"there is no such side of the bus": {transports.Side{}, ""},
	} {
		var got string
		for _, f := range (transports.Driver{Name: "x", Mirror: c.side}).Examine(t.Context(), transports.Mirror, &config{}, transports.Env{}) {
			got += f.What
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestPermanent(t *testing.T) {
	err := errors.New("no such user")
	if transports.Permanent(nil) != nil || transports.IsPermanent(err) || !transports.IsPermanent(errors.Join(transports.Permanent(err))) {
		t.Error("Permanent marks exactly the errors it was given")
	}
	if p := transports.Permanent(err); !errors.Is(p, err) || p.Error() != err.Error() {
		t.Error("a permanent error reads as the one marked")
	}
}

// together is a transport that takes several messages at a time, and refuses those of debian.
type together struct{ fake }

func (t *together) PublishAll(ctx context.Context, ms []transports.Message) []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		if errs[i] = t.Publish(ctx, m); m.Topic == debian {
			errs[i] = transports.ErrNotConnected
		}
	}
	return errs
}

func (t *together) Counters() map[string]uint64 {
	return map[string]uint64{"dropped": 2, "returned": 1}
}

// TestCheckedBatch: what does not pass is refused in its place, and only the rest reaches the transport.
func TestCheckedBatch(t *testing.T) {
	next := &together{}
	c := transports.Checked(next, transports.Capabilities{MaxBody: 4}, nil)
	errs := c.Batch().PublishAll(t.Context(), []transports.Message{
		{Topic: fedora, ID: "1", Body: []byte("12345")}, {Topic: debian, ID: "2", Body: []byte("1")}, {Topic: fedora, ID: "", Body: []byte("1")},
		{Topic: fedora, ID: "4", Body: []byte("1")},
	})
	if len(errs) != 4 || !errors.Is(errs[0], transports.ErrTooLarge) || !errors.Is(errs[1], transports.ErrNotConnected) || errs[2] == nil || errs[3] != nil {
		t.Errorf("the errors are %v", errs)
	}
	if len(next.published) != 2 || next.published[0].ID != "2" || next.published[1].ID != "4" {
		t.Errorf("the transport got %+v", next.published)
	}
	if transports.Checked(&fake{}, transports.Capabilities{}, nil).Batch() != nil {
		t.Error("a transport that takes one message at a time is said to take several")
	}
}

func TestCounters(t *testing.T) {
	next := &together{fake{deliver: []transports.Message{{Topic: debian, Body: []byte("x")}}, err: errors.New("end")}}
	c := transports.Checked(next, transports.Capabilities{MaxBody: 4}, nil)
	if err := c.Run(t.Context(), []transports.Subscription{{Topic: fedora}}, &collect{}); !errors.Is(err, next.err) {
		t.Fatal(err)
	}
	if got := c.Counters(); got["dropped"] != 3 || got["returned"] != 1 {
		t.Errorf("counters are %v, want 3 dropped, one of them here, and 1 returned", got)
	}
	if got := transports.Checked(&fake{}, transports.Capabilities{}, nil).Counters(); got["dropped"] != 0 || len(got) != 1 {
		t.Errorf("counters of a transport that has none are %v", got)
	}
}

// A refuser refuses its second message for good.
type refuser struct{ collect }

func (r *refuser) Receive(ctx context.Context, m transports.Message) error {
	if len(r.got) == 1 {
		r.got = append(r.got, "")
		return &transports.Refusal{Err: errors.New("not trusted")}
	}
	return r.collect.Receive(ctx, m)
}

// A teller tells the other side of refusals.
type teller struct{ *fake }

func (teller) TellsRefusals() {}

// A message that is refused for good is as good as taken to a transport that can tell nobody, and a refusal to one that can.
func TestRefusals(t *testing.T) {
	m := transports.Message{Topic: fedora, ID: "1", Body: []byte("x")}
	gone := errors.New("gone")
	f := &fake{deliver: []transports.Message{m, m, m}, err: gone}
	for name, c := range map[string]struct {
		transport transports.Transport
		refused   bool
		got       int
	}{
		"to nobody": {f, false, 3},
		"told":      {teller{f}, true, 2}, // this one ends at it
	} {
		t.Run(name, func(t *testing.T) {
			var in refuser
			err := transports.Checked(c.transport, transports.Capabilities{MaxBody: 4}, nil).Run(t.Context(), []transports.Subscription{{Topic: fedora}}, &in)
			var refusal *transports.Refusal
			if errors.As(err, &refusal) != c.refused || !c.refused && !errors.Is(err, gone) || len(in.got) != c.got {
				t.Errorf("error is %v after %d messages", err, len(in.got))
			}
		})
	}
}
