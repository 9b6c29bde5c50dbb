package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/transports"
)

func idle() *Watchdog { return NewWatchdog(time.Hour, func() {}) }

// readFrames reads messages until the input ends or does not keep to the protocol.
func readFrames(in io.Reader) (all []transports.Message, err error) {
	r := Lines(in)
	for {
		line, err := ReadLine(r)
		if err != nil {
			return all, err
		}
		m, size, err := ParseHeader(line)
		if err != nil {
			return all, err
		}
		if m.Body, err = ReadBody(r, size, idle()); err != nil {
			return all, err
		}
		all = append(all, m)
	}
}

// What is read from any input is, written again, the beginning of that input.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("msg a announce/debian 3\na\nb\nmsg b report/x 1\n\x00\n"))
	f.Add([]byte("msg a announce/debian 8388608\n"))
	f.Add([]byte("msg a announce/debian 01\na\n"))
	f.Add(bytes.Repeat([]byte("m"), MaxLine+1))
	f.Fuzz(func(t *testing.T, in []byte) {
		all, err := readFrames(bytes.NewReader(in))
		if err == nil {
			t.Fatal("reading ended without an error")
		}
		var out []byte
		for _, m := range all {
			if err := (transports.Capabilities{MaxBody: MaxBody}).Check(m); err != nil {
				t.Fatal(err)
			}
			out = append(out, Encode(m)...)
		}
		if !bytes.HasPrefix(in, out) {
			t.Errorf("%q was read as %q", in, out)
		}
		if errors.Is(err, io.EOF) && len(in) != len(out) {
			t.Errorf("%q ended well after %q", in, out)
		}
	})
}

func TestDeclaredBodyTakesNoMemory(t *testing.T) {
	in := "msg a announce/debian 8388608\nshort"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readFrames(strings.NewReader(in))
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error is %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 4*chunk {
		t.Errorf("%d bytes were allocated for 5", took)
	}
}

func TestLines(t *testing.T) {
	full := strings.Repeat("x", MaxLine-1)
	for in, want := range map[string]string{"a\n": "a", "\n": "", full + "\n": full} {
		if got, err := ReadLine(Lines(strings.NewReader(in))); got != want || err != nil {
			t.Errorf("%.10q of %d bytes: got %.10q, %v", in, len(in), got, err)
		}
	}
	for in, want := range map[string]error{"": io.EOF, "a": io.ErrUnexpectedEOF, full + "x\n": ErrFrame} {
		if _, err := ReadLine(Lines(strings.NewReader(in))); !errors.Is(err, want) {
			t.Errorf("%.10q of %d bytes: got %v, want %v", in, len(in), err, want)
		}
	}
}

// Any position comes over as it is.
func FuzzSubscribeCommand(f *testing.F) {
	f.Add("debian", "7c1e9f02:1042")
	f.Add("debian", " @%/\n\x00\xff")
	f.Fuzz(func(t *testing.T, module, have string) {
		topic := transports.Topic{Kind: transports.Announce, Module: module}
		line, err := SubscribeCommand([]transports.Subscription{{Topic: topic, Have: func() string { return have }}})
		if len(have) > maxHave || topic.Check() != nil {
			if err == nil {
				t.Fatalf("module %q with a position of %d bytes was accepted", module, len(have))
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseWants(strings.Split(line, " ")[2:])
		if diff := cmp.Diff([]Want{{topic, have}}, got, cmp.AllowUnexported(Want{})); diff != "" || err != nil {
			t.Errorf("%s: %v %s", line, err, diff)
		}
	})
}

func FuzzParseWants(f *testing.F) {
	f.Add("announce/debian@1 report/x")
	f.Add("announce/debian@%zz")
	f.Fuzz(func(t *testing.T, args string) {
		got, err := ParseWants(strings.Split(args, " "))
		for _, w := range got {
			if err == nil && (w.Topic.Check() != nil || len(w.Have) > maxHave) {
				t.Errorf("%q was read as %v", args, got)
			}
		}
	})
}

func TestTooLongSubscription(t *testing.T) {
	var subs []transports.Subscription
	for i := range 3000 {
		subs = append(subs, transports.Subscription{Topic: transports.Topic{Kind: transports.Announce, Module: fmt.Sprintf("%050d", i)}})
	}
	if _, err := SubscribeCommand(subs); err == nil || !strings.Contains(err.Error(), "3000 topics is too long") {
		t.Errorf("error is %v", err)
	}
	if line, err := SubscribeCommand(subs[:1500]); err != nil || len(line) > MaxCommand {
		t.Errorf("half of it: %d bytes, %v", len(line), err)
	}
}

func TestAnswers(t *testing.T) {
	m := transports.Message{ID: "m1", Topic: transports.Topic{Kind: transports.Report, Module: "debian"}}
	for line, want := range map[string]string{"ok m1": "", "err m1 no \x1b[31mway": "the other side refuses the message on report/debian: no  [31mway"} {
		err, ok := ParseAnswer(line, m)
		if !ok || want == "" && err != nil || want != "" && err.Error() != want {
			t.Errorf("%q: %v, %v", line, err, ok)
		}
	}
	for _, line := range []string{"ok m2", "ok", "err m1", "err m11 no", "OK m1", ""} {
		if _, ok := ParseAnswer(line, m); ok {
			t.Errorf("%q is taken for an answer", line)
		}
	}
	if got := OneLine(strings.Repeat("é", 1000)); len("err \n")+64+1+len(got) > MaxLine || !strings.HasSuffix(got, "é") {
		t.Errorf("a long text becomes %d bytes: …%q", len(got), got[len(got)-3:])
	}
}

func TestRecentForgetsTheOldest(t *testing.T) {
	var r recent
	for i := range maxRecent + 10 {
		r.add(key{id: fmt.Sprint(i)})
	}
	if len(r.set) != maxRecent || r.set[key{id: "9"}] || !r.set[key{id: "10"}] || !r.set[key{id: fmt.Sprint(maxRecent + 9)}] {
		t.Errorf("%d are remembered", len(r.set))
	}
}

// FuzzAnswer: only the answer to just this message counts, and what it says fits a line of a log.
func FuzzAnswer(f *testing.F) {
	f.Add("ok a", "a")
	f.Add("err a not\x1b[2J now", "a")
	f.Add("err a  ", "")
	f.Fuzz(func(t *testing.T, line, id string) {
		refusal, ok := ParseAnswer(line, transports.Message{ID: id, Topic: transports.Topic{Kind: transports.Report, Module: "m"}})
		if ok && line != "ok "+id && !strings.HasPrefix(line, "err "+id+" ") || (ok && refusal == nil) != (line == "ok "+id) {
			t.Errorf("%q is taken for an answer to %q: %v", line, id, refusal)
		}
		if text := fmt.Sprint(refusal); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(text) {
			t.Errorf("%q becomes %q", line, text)
		}
	})
}
