package trigger

import (
	"crypto/ed25519"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// A desk receives reports, of the mirrors one and two.
type desk struct {
	*reports
	keys map[string]ssh.Signer
}

var errNotWelcome = errors.New("not welcome")

func newDesk(t *testing.T) desk {
	t.Helper()
	d := desk{keys: map[string]ssh.Signer{}}
	var trust strings.Builder
	for i, name := range []string{"one", "two"} {
		key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(name[:1], ed25519.SeedSize))))
		if err != nil {
			t.Fatal(i, err)
		}
		d.keys[name] = key
		trust.WriteString(name + " " + string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	}
	file, _, err := signers.Parse(strings.NewReader(trust.String()), "trust")
	if err != nil {
		t.Fatal(err)
	}
	c, err := collector.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	allowed := func(peer string, topic transports.Topic, subscribe bool) error {
		if peer == "two" || subscribe || topic.Kind != transports.Report {
			return errNotWelcome
		}
		return nil
	}
	d.reports = &reports{gate: event.Gate{Trust: file}, allowed: allowed, collector: c, now: time.Now, log: slog.New(slog.DiscardHandler), quiet: rate.NewLimiter(0, 0)}
	return d
}

// message carries what m says, sealed by one.
func (d desk) message(t *testing.T, m event.Texter, by, from, module string) transports.Message {
	t.Helper()
	line, err := event.Seal(m, d.keys[by])
	if err != nil {
		t.Fatal(err)
	}
	return transports.Message{Topic: transports.Topic{Kind: transports.Report, Module: module}, ID: "1", Body: line, From: from}
}

func TestReportMustComeFromItsMirrorOnItsTopic(t *testing.T) {
	d := newDesk(t)
	defer d.collector.Close() //nolint:errcheck // nothing was written
	r := event.Report{Module: "m", Mirror: "one", Epoch: "7c1e9f02", Run: 1, Outcome: event.Applied, Serial: 1, Applied: 1}
	other, head := r, event.Head{Module: "m", Epoch: "7c1e9f02", At: time.Unix(1, 0), TTL: time.Hour}
	other.Mirror = "two"
	for name, c := range map[string]struct {
		m    transports.Message
		good bool
	}{
		"as it should be":              {d.message(t, r, "one", "one", "m"), true},
		"by a transport without peers": {d.message(t, r, "one", "", "m"), true},
		"brought by another":           {d.message(t, r, "one", "two", "m"), false},
		"on another topic":             {d.message(t, r, "one", "one", "n"), false},
		"signed by another":            {d.message(t, r, "two", "one", "m"), false},
		"not welcome":                  {d.message(t, other, "two", "two", "m"), false},
		"no report":                    {d.message(t, head, "one", "one", "m"), false},
	} {
		got, err := d.open(c.m)
		if (err == nil) != c.good || c.good && got != r {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestReportThatCannotBeStoredIsAskedForAgain(t *testing.T) {
	d := newDesk(t)
	r := event.Report{Module: "m", Mirror: "one", Epoch: "7c1e9f02", Run: 1, Outcome: event.Applied, Serial: 1, Applied: 1}
	good := d.message(t, r, "one", "one", "m")
	if err := d.Receive(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if err := d.collector.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Receive(t.Context(), good); err == nil {
		t.Error("acknowledged, though it is stored nowhere")
	}
	if err := d.Receive(t.Context(), d.message(t, r, "one", "two", "m")); err != nil {
		t.Errorf("what cannot count is asked for again: %v", err)
	}
}
