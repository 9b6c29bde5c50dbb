package config_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/internal/config"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "0": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "0d": 0,
	} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Duration != want {
			t.Errorf("%s: %v, %v", text, d.Duration, err)
		}
	}
	for _, text := range []string{"", "5", "-5s", "1.5d", "d", "-1d", "1d-1h", "99999999d", "5 m", "1h2d", "9000000h9000000h", "106751d24h"} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %v", text, d)
		}
	}
}

func TestDurationReadsWhatItWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := config.Duration{Duration: time.Duration(rapid.Int64Min(0).Draw(t, "d"))}
		var again config.Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%v: %v, %v", d, again, err)
		}
	})
}

func TestSizeAndRate(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "4096": 4096, "10k": 10_000, "10M": 10_000_000, "10MB": 10_000_000, "1GiB": 1 << 30, "1.5KiB": 1536, "10 MiB": 10 << 20, "7B": 7, "2Ki": 2048,
	} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		var r config.Rate
		if err := r.UnmarshalText([]byte(text + "/s")); err != nil || r != config.Rate(want) {
			t.Errorf("%s/s: %d, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "M", "-1", "1,5M", "10 X", "10MBs", "1e3", "99999999999E", " 1", "1/s/s"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "is no size") {
			t.Errorf("%q was taken as %v: %v", text, s, err)
		}
		var r config.Rate
		if err := r.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "is no rate") {
			t.Errorf("%q was taken as %v: %v", text, r, err)
		}
	}
}

func TestSizeReadsWhatItWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64().Draw(t, "n") >> rapid.IntRange(0, 63).Draw(t, "less") << rapid.IntRange(0, 40).Draw(t, "more")
		var s config.Size
		if err := s.UnmarshalText([]byte(config.Size(n).String())); err != nil || uint64(s) != n {
			t.Errorf("%d: %v, %v", n, s, err)
		}
		var r config.Rate
		if err := r.UnmarshalText([]byte(config.Rate(n).String())); err != nil || uint64(r) != n {
			t.Errorf("%d/s: %v, %v", n, r, err)
		}
	})
}
