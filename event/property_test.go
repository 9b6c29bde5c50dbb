package event_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
)

var (
	drawModule = rapid.Custom(func(t *rapid.T) event.Module {
		return event.Module(rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,59}`).Draw(t, "module"))
	})
	drawEpoch  = rapid.Custom(func(t *rapid.T) event.Epoch { return event.Epoch(rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "epoch")) })
	drawDigest = rapid.Custom(func(t *rapid.T) event.Digest { return event.Sum(rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "of")) })
	drawTime   = rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(1, 253402300799).Draw(t, "second"), 0).UTC()
	})
	drawName = rapid.StringMatching(`[A-Za-z0-9._@-]{1,64}`)
)

// count draws a number from lo to hi, often small.
func count[T ~int | ~uint32 | ~int64 | ~uint64](t *rapid.T, what string, lo, hi uint64) T {
	if rapid.Bool().Draw(t, what+" is small") {
		hi = min(hi, lo+10)
	}
	return T(rapid.Uint64Range(lo, hi).Draw(t, what))
}

const century = 100 * 366 * 24 * time.Hour

func drawAnnouncement(t *rapid.T) event.Announcement {
	a := event.Announcement{
		Kind: event.Change, Module: drawModule.Draw(t, "module"), Epoch: drawEpoch.Draw(t, "epoch"), At: drawTime.Draw(t, "at"),
		Serial: count[event.Serial](t, "serial", 1, uint64(event.MaxSerial)), Set: drawDigest.Draw(t, "set"), Prev: drawDigest.Draw(t, "prev"),
	}
	if a.Serial == 1 {
		a.Prev = event.Digest{}
	}
	if rapid.Bool().Draw(t, "flip") {
		a.Kind = event.Flip
		a.NotBefore = count[time.Duration](t, "not before", 0, uint64(century/time.Second)-1) * time.Second
		if a.NotBefore > 0 {
			a.Was = count[uint32](t, "was", 0, 0o7777)
		}
		if rapid.Bool().Draw(t, "expires") {
			a.Expires = count[time.Duration](t, "expires", uint64(a.NotBefore/time.Second)+1, uint64(century/time.Second)) * time.Second
		}
		return a
	}
	a.Count = count[int](t, "n", 0, event.MaxRecords)
	if rapid.Bool().Draw(t, "no set") {
		a.Set = event.Digest{}
	}
	return a
}

func drawHead(t *rapid.T) event.Head {
	h := event.Head{
		Module: drawModule.Draw(t, "module"), Epoch: drawEpoch.Draw(t, "epoch"), Serial: count[event.Serial](t, "serial", 0, uint64(event.MaxSerial)),
		At: drawTime.Draw(t, "at"), TTL: count[time.Duration](t, "ttl", 1, uint64(century/time.Second)) * time.Second,
	}
	if h.Serial > 0 {
		h.Last = drawDigest.Draw(t, "last")
	}
	if rapid.Bool().Draw(t, "manifest") {
		h.Manifest = drawDigest.Draw(t, "man")
	}
	if rapid.Bool().Draw(t, "held") {
		h.Hold = count[time.Duration](t, "hold", 1, uint64(event.MaxHold/time.Second)) * time.Second
		h.TTL = min(h.TTL, event.MaxHold)
	}
	return h
}

func drawReport(t *rapid.T) event.Report {
	const most = 1<<63 - 1
	r := event.Report{
		Module: drawModule.Draw(t, "module"), Mirror: drawName.Draw(t, "mirror"), Epoch: drawEpoch.Draw(t, "epoch"),
		Serial: count[event.Serial](t, "serial", 0, uint64(event.MaxSerial)), Applied: count[event.Serial](t, "applied", 0, uint64(event.MaxSerial)),
		Run: count[uint64](t, "run", 0, most), Head: drawDigest.Draw(t, "head"),
		Outcome: rapid.SampledFrom([]event.Outcome{event.Have, event.Received, event.Ready, event.Applied, event.Failed, event.Blocked, event.Skipped}).Draw(t, "outcome"),
		Files:   count[int64](t, "files", 0, most), Bytes: count[int64](t, "bytes", 0, most), Deleted: count[int64](t, "deleted", 0, most),
		Error: rapid.StringN(0, -1, event.MaxError).Draw(t, "error"),
	}
	if rapid.Bool().Draw(t, "worked") {
		r.Started = drawTime.Draw(t, "started")
		r.Took = count[time.Duration](t, "took", 0, uint64(century/time.Millisecond)) * time.Millisecond
	}
	if rapid.Bool().Draw(t, "by transport") {
		r.Via = drawName.Draw(t, "via")
		r.Heard = time.Duration(rapid.Int64Range(-int64(century/time.Millisecond), int64(century/time.Millisecond)).Draw(t, "heard")) * time.Millisecond
	}
	return r
}

// openAs opens line at a gate that trusts masterKey in the name of principal.
func openAs(t *rapid.T, principal string, line []byte) event.Sealed {
	trust, problems, err := signers.Parse(strings.NewReader(principal+" "+authorized(masterKey.PublicKey())+"\n"), "trust")
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	gate := event.Gate{Trust: trust, Grants: []event.Grant{{Principal: principal, Modules: []string{"*"}, Kinds: allKinds}}}
	s, err := gate.Open(line, vectorTime)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return s
}

// What is sealed and opened is what it was.
func TestSealThenOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		principal, m := "master", event.Texter(nil)
		switch rapid.IntRange(0, 2).Draw(t, "message") {
		case 0:
			m = drawAnnouncement(t)
		case 1:
			m = drawHead(t)
		default:
			r := drawReport(t)
			principal, m = r.Mirror, r
		}
		s := openAs(t, principal, sealed(t, m, masterKey))
		var got event.Texter
		switch {
		case s.Announcement != nil:
			got = *s.Announcement
		case s.Head != nil:
			got = *s.Head
		case s.Report != nil:
			got = *s.Report
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("sealed (-) and opened (+):\n%s", diff)
		}
	})
}

func sealed(t *rapid.T, m event.Texter, key ssh.Signer) []byte {
	line, err := event.Seal(m, key)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// A report can be read whatever went wrong: an error text with any bytes and of any length, clocks centuries apart.
func TestAnyReportCanBeRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawReport(t)
		r.Error = string(rapid.SliceOfN(rapid.Byte(), 0, 1000).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "a path of é") {
			r.Error = "x" + strings.Repeat("é", 400)
		}
		r.Took, r.Heard = time.Duration(rapid.Int64().Draw(t, "took")), time.Duration(rapid.Int64().Draw(t, "heard"))
		got := openAs(t, r.Mirror, sealed(t, r, masterKey)).Report
		if len(got.Error) > event.MaxError || !utf8.ValidString(got.Error) {
			t.Errorf("error text %q", got.Error)
		}
	})
}

// Bytes changed, cut out or put in, and parts of two lines put together, are never what somebody signed, unless it is one of the two lines.
func TestDamagedLinesAreRefused(t *testing.T) {
	gate := vectorGate(t)
	lines := [][]byte{seal(t, messages("m")[0], masterKey), seal(t, messages("m")[1], masterKey), seal(t, messages("mirror1")[3], mirrorKey)}
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom(lines).Draw(t, "line")
		from := rapid.IntRange(0, len(line)).Draw(t, "from")
		to := rapid.IntRange(from, min(len(line), from+3)).Draw(t, "to")
		middle := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "middle")
		end := line[to:]
		if rapid.Bool().Draw(t, "end of another") {
			end = rapid.SampledFrom(lines).Draw(t, "other")
			end = end[min(to, len(end)):]
		}
		damaged := fmt.Appendf(nil, "%s%s%s", line[:from], middle, end)
		s, err := gate.Open(damaged, vectorTime)
		for _, l := range lines {
			if string(damaged) == string(l) {
				return
			}
		}
		if err == nil {
			t.Errorf("%s passes as %+v", damaged, s)
		}
	})
}

func drawPath(t *rapid.T) string {
	part := rapid.OneOf(
		rapid.StringMatching(`[a-c]{1,2}`),
		rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 8), func(b []byte) string { return strings.ReplaceAll(string(b), "/", "_") }),
	)
	path := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
	if event.CheckPath(path) != nil { // a component . or ..
		return "x"
	}
	return path
}

func drawRecord(t *rapid.T, path string) event.Record {
	r := event.Record{
		Op:   event.Op(rapid.SampledFrom([]byte("+=-dr>")).Draw(t, "op")),
		Mode: rapid.SampledFrom([]uint32{0, event.ModeFile | 0o644, event.ModeDir | 0o2755, event.ModeLink | 0o777, 0o177777}).Draw(t, "mode"),
		Size: rapid.Int64Range(0, 1<<63-1).Draw(t, "size"), Path: path,
		MTime: event.Stamp{Sec: rapid.Int64().Draw(t, "sec"), Nsec: rapid.SampledFrom([]int32{0, 1, 999999999}).Draw(t, "nsec")},
		Link:  rapid.SampledFrom([]uint64{0, 1, 1<<64 - 1}).Draw(t, "link"), Serial: rapid.SampledFrom([]event.Serial{0, 1, event.MaxSerial}).Draw(t, "serial"),
	}
	if rapid.Bool().Draw(t, "sum") {
		r.Sum = drawDigest.Draw(t, "digest")
	}
	if r.Op == event.Renamed {
		r.From = drawPath(t)
	}
	return r
}

// What makes a path set is read again from its canonical form as it was, and what does not is refused by the decoder too.
func TestPathSetRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []event.Record
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			records = append(records, drawRecord(t, drawPath(t)))
		}
		set, err := event.NewPathSet(records)
		again, err2 := event.DecodePathSet(set.Encode())
		if (err == nil) != (err2 == nil) {
			t.Fatalf("made: %v, read: %v", err, err2)
		}
		if err == nil && len(set) > 0 && !cmp.Equal(set, again) {
			t.Errorf("made (-) and read (+):\n%s", cmp.Diff(set, again))
		}
		if err == nil && set.Digest() != again.Digest() {
			t.Error("the digest changed")
		}
	})
}
