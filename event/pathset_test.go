package event_test

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
)

func setVectors() []vector {
	const file = "+ 100644 5 1795206796 - releases/43/README\x00"
	long := strings.Repeat("d", 255)
	return []vector{
		{"valid-every-op", "One record of each op; a rename carries the old name after it.", "ok",
			"+ 100644 5 1795206796.000000042 link=1,sha256=" + event.Sum([]byte("hello")).String() + " a\x00" +
				"= 40755 0 1795206796 - b\x00- 0 0 0 - c\x00d 40755 0 1 - d\x00> 40755 0 1 - e\x00old e\x00r 0 0 0 - f/g\x00"},
		{"valid-empty", "No path at all.", "ok", ""},
		{"valid-odd-names", "Names are bytes: spaces, a newline, a leading dash, not UTF-8.", "ok",
			"+ 100644 0 0 - -rf\x00+ 100644 0 0 - a b\nc\x00+ 100644 0 0 - caf\xe9\x00"},
		{"valid-gone-with-parent", "A directory and what was in it.", "ok", "- 0 0 0 - a\x00- 0 0 0 - a/b\x00"},
		{"valid-before-1970", "", "ok", "+ 100644 0 -1 - a\x00"},

		{"malformed-no-nul", "Cut short.", "malformed", strings.TrimSuffix(file, "\x00")},
		{"malformed-no-old-name", "A rename cut short.", "malformed", "> 40755 0 1 - e\x00"},
		{"malformed-out-of-order", "", "malformed", "+ 100644 0 0 - b\x00+ 100644 0 0 - a\x00"},
		{"malformed-path-twice", "", "malformed", "+ 100644 0 0 - a\x00= 100644 0 0 - a\x00"},
		{"malformed-below-gone", "Said to be gone and to hold something.", "malformed", "- 0 0 0 - a\x00+ 100644 0 0 - a-b\x00+ 100644 0 0 - a/b\x00"},
		{"malformed-op", "", "malformed", "x 100644 0 0 - a\x00"},
		{"malformed-absolute", "", "malformed", "+ 100644 0 0 - /etc/passwd\x00"},
		{"malformed-dot-dot", "", "malformed", "+ 100644 0 0 - a/../../b\x00"},
		{"malformed-dot", "The module itself.", "malformed", "r 0 0 0 - .\x00"},
		{"malformed-dot-inside", "rsync would anchor the name there.", "malformed", "+ 100644 0 0 - a/./b\x00"},
		{"malformed-empty-path", "", "malformed", "r 0 0 0 - \x00"},
		{"malformed-trailing-slash", "", "malformed", "d 0 0 0 - a/\x00"},
		{"malformed-double-slash", "", "malformed", "+ 100644 0 0 - a//b\x00"},
		{"malformed-component-256", "", "malformed", "+ 100644 0 0 - " + long + "d\x00"},
		{"malformed-path-4096", "", "malformed", "+ 100644 0 0 - " + strings.Repeat(long+"/", 16)[:4096] + "\x00"},
		{"malformed-export-dir", ".mirrorbus is never announced.", "malformed", "+ 100644 0 0 - .mirrorbus/head\x00"},
		{"malformed-mode-leading-zero", "One set has one form.", "malformed", "+ 0100644 0 0 - a\x00"},
		{"malformed-size-negative", "", "malformed", "+ 100644 -1 0 - a\x00"},
		{"malformed-size-two-to-the-63", "", "malformed", "+ 100644 9223372036854775808 0 - a\x00"},
		{"malformed-time-short-fraction", "", "malformed", "+ 100644 0 1.5 - a\x00"},
		{"malformed-extra-unknown", "", "malformed", "+ 100644 0 0 colour=blue a\x00"},
		{"malformed-extra-order", "", "malformed", "+ 100644 0 0 sha256=" + event.Sum(nil).String() + ",link=1 a\x00"},
		{"malformed-level-of-file", "", "malformed", "d 100644 0 0 - a\x00"},
		{"malformed-rename-of-file", "A rename speaks of a directory; a file's is a + and a -.", "malformed", "> 100644 0 0 - b\x00a\x00"},
		{"malformed-mode-too-large", "", "malformed", "+ 200000 0 0 - a\x00"},
		{"malformed-link-zero", "", "malformed", "+ 100644 0 0 link=0 a\x00"},
		{"malformed-rename-into-itself", "", "malformed", "> 40755 0 0 - a/b\x00a\x00"},
	}
}

func TestPathSetVectors(t *testing.T) {
	if *update {
		writeVectors(t, "testdata/pathset", setVectors())
	}
	for _, v := range readVectors(t, "testdata/pathset") {
		t.Run(v.name, func(t *testing.T) {
			s, err := event.DecodePathSet([]byte(v.body))
			checkVerdict(t, v.expect, err)
			if err == nil && string(s.Encode()) != v.body {
				t.Errorf("encoded again it is %q", s.Encode())
			}
		})
	}
}

func TestCompactLinesFitOneIRCMessage(t *testing.T) {
	module := event.Module(strings.Repeat("m", 60))
	d := event.Sum(nil)
	for _, m := range []event.Texter{
		event.Announcement{Kind: event.Change, Module: module, Epoch: "00000000", Serial: event.MaxSerial, At: vectorTime, Count: event.MaxRecords, Set: d, Prev: d},
		event.Announcement{Kind: event.Flip, Module: module, Epoch: "00000000", Serial: event.MaxSerial, At: vectorTime, Set: d, Prev: d, NotBefore: 86400e9, Expires: 864000e9},
		event.Announcement{Kind: event.Flip, Module: module[:54], Epoch: "00000000", Serial: event.MaxSerial, At: vectorTime, Set: d, Prev: d, NotBefore: 86400e9, Was: 0o7777, Expires: 864000e9},
		event.Head{Module: module, Epoch: "00000000", Serial: event.MaxSerial, At: vectorTime, TTL: 9999e9, Last: d, Manifest: d},
		event.Head{Module: module, Epoch: "00000000", Serial: event.MaxSerial, At: vectorTime, TTL: event.MaxHold, Last: d, Manifest: d, Hold: event.MaxHold},
	} {
		line, err := event.Seal(m, masterKey)
		if err != nil {
			t.Fatal(err)
		}
		if len(line) > event.MaxCompact {
			t.Errorf("%d bytes, over %d: %s", len(line), event.MaxCompact, line)
		}
	}
}

func FuzzDecodePathSet(f *testing.F) {
	for _, v := range readVectors(f, "testdata/pathset") {
		f.Add([]byte(v.body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := event.DecodePathSet(b)
		if err == nil && string(s.Encode()) != string(b) {
			t.Errorf("%q is taken but is not canonical", b)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, v := range readVectors(f, "testdata/line") {
		f.Add([]byte(v.body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := event.Read(b)
		if err != nil {
			return
		}
		text := b[:strings.LastIndex(string(b), " key=")]
		for _, m := range []event.Texter{s.Announcement, s.Head, s.Report} {
			again, isNil := "", false
			switch m := m.(type) {
			case *event.Announcement:
				isNil = m == nil
			case *event.Head:
				isNil = m == nil
			case *event.Report:
				isNil = m == nil
			}
			if isNil {
				continue
			}
			again = string(m.Text())
			if _, err := event.Read([]byte(again + string(b[len(text):]))); err != nil && len(again) <= event.MaxLine-200 {
				t.Errorf("%s is read, but what it says, %s, is not: %v", text, again, err)
			}
		}
	})
}
