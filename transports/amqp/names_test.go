package amqp

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
)

func TestKeys(t *testing.T) {
	for key, want := range map[string]struct {
		topic  transports.Topic
		mirror string
	}{
		announceKey("fedora", false):                   {transports.Topic{Kind: transports.Announce, Module: "fedora"}, ""},
		announceKey("x.fedora-y_z", false):             {transports.Topic{Kind: transports.Announce, Module: "x.fedora-y_z"}, ""},
		announceKey("fedora", true):                    {transports.Topic{Kind: transports.Announce, Module: "fedora"}, ""},
		reportKey("mirror1", "fedora"):                 {transports.Topic{Kind: transports.Report, Module: "fedora"}, "mirror1"},
		reportKey("mirror1.example.org", "fedora.x.y"): {transports.Topic{Kind: transports.Report, Module: "fedora.x.y"}, "mirror1.example.org"},
		reportKey("mirror1.fedora", "x"):               {transports.Topic{Kind: transports.Report, Module: "x"}, "mirror1.fedora"},
		"report.mirror1.fedora~x":                      {transports.Topic{Kind: transports.Report, Module: "fedora.x"}, "mirror1"},
		"announce." + strings.Repeat("a", 60):          {transports.Topic{Kind: transports.Announce, Module: strings.Repeat("a", 60)}, ""},
	} {
		topic, mirror, err := parseKey(key)
		if err != nil || topic != want.topic || mirror != want.mirror {
			t.Errorf("%s: %v of %q, %v, want %v of %q", key, topic, mirror, err, want.topic, want.mirror)
		}
	}
	for _, key := range []string{"", ".", "announce", "announce.", "announce.a.b", "embargo.a.b", "announce.A", "announce.-", "announce." + strings.Repeat("a", 61),
		"report", "report.", "report.a", "report..a", "report.a.", "report.a.B", "other.a", "announce.a~", "ANNOUNCE.a"} {
		if topic, mirror, err := parseKey(key); err == nil && key != "announce.a~" { // a module may end with a dot
			t.Errorf("%q is taken for %v of %q", key, topic, mirror)
		}
	}
}

// FuzzKeys: what is taken for a key of ours is one, and is made of what it says, unless it is of an embargoed module.
func FuzzKeys(f *testing.F) {
	for _, key := range []string{"announce.fedora", "embargo.a~b", "report.mirror.example.org.fedora", "report..", "x"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		topic, mirror, err := parseKey(key)
		if err != nil {
			return
		}
		if err := topic.Check(); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		again := []string{announceKey(topic.Module, false), announceKey(topic.Module, true)}
		if topic.Kind == transports.Report {
			again = []string{reportKey(mirror, topic.Module)}
		}
		for _, a := range again {
			if a == key {
				return
			}
		}
		t.Fatalf("%q is taken for %v of %q, whose keys are %q", key, topic, mirror, again)
	})
}
