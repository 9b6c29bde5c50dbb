package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
)

// A command says the same after it has travelled, whatever bytes its paths are.
func TestCommandRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.Custom(func(t *rapid.T) string {
			return strings.ReplaceAll(string(rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "path")), "\x00", "x")
		})
		c := event.Command{Module: "fedora", Master: "master", At: vectorTime, TTL: time.Duration(rapid.IntRange(1, 86400).Draw(t, "ttl")) * time.Second,
			Nonce: "0123456789abcdef", Order: event.SyncNow, Paths: rapid.SliceOfN(path, 1, 20).Draw(t, "paths")}
		line, err := event.Seal(c, commandKey)
		if err != nil {
			t.Fatal(err)
		}
		s, err := event.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(&c, s.Command); d != "" {
			t.Error(d)
		}
	})
}
