package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// FuzzShow shows what any file may hold: whatever it is, nothing reaches the terminal that the terminal would obey.
func FuzzShow(f *testing.F) {
	set := event.PathSet{{Op: event.Write, Mode: event.ModeFile | 0o644, Path: "a\x1b[2J\u009b\u202e\xff"}, {Op: event.Gone, Path: "b\n"}}
	line := "mirrorbus1 change module=m epoch=0123abcd serial=1 at=2026-11-20T19:00:00Z n=2 set=" + set.Digest().String() + " prev=- key=AAAAAAAAAAA sig=AAAA"
	f.Add([]byte(line), []byte(nil), false)
	f.Add([]byte(line), set.Encode(), false)
	f.Add([]byte(line+"\n"), []byte(nil), true)
	f.Add([]byte("mirrorbus1 report module=m mirror=x epoch=0123abcd serial=1 run=1 outcome=failed applied=0 head=- err=%1B%5B2J%C2%9B key=AAAAAAAAAAA sig=AAAA"), []byte(nil), true)
	f.Fuzz(func(t *testing.T, line, set []byte, asJSON bool) {
		body := line
		if len(set) > 0 {
			body = envelope.Encode(line, envelope.Compress(set))
		}
		var out, errs bytes.Buffer
		a := &app{out: &out, err: &errs, json: asJSON}
		line, compressed, err := envelope.Decode(body)
		if err == nil {
			err = a.show(line, compressed)
		}
		if err != nil {
			a.printError(err)
		}
		if (err == nil) != (out.Len() > 0) || (err == nil) == (errs.Len() > 0) {
			t.Errorf("%v: %q, %q", err, out.String(), errs.String())
		}
		if asJSON && err == nil {
			if !json.Valid(out.Bytes()) {
				t.Errorf("%q is shown as %s", body, out.String())
			}
			out.Reset() // what is for programs escapes what JSON must, and no more
		}
		for _, text := range []string{out.String(), errs.String()} {
			if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("%q is shown as %q", body, text)
			}
		}
	})
}
