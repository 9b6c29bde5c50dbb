package event

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// An Outcome is what a mirror says of a serial.
type Outcome string

// The outcomes.
const (
	Have     Outcome = "have"     // this is where I stand; said at each connect
	Received Outcome = "received" // heard, verified and stored
	Ready    Outcome = "ready"    // a flip's content is there, its metadata waits for its time
	Applied  Outcome = "applied"  // on disk, checked and synced
	Failed   Outcome = "failed"   // tried and not done; Error says why, it will be tried again unless it says otherwise
	Blocked  Outcome = "blocked"  // cannot go on by itself until something here changes: disk full, held for confirmation
	Skipped  Outcome = "skipped"  // nothing of it belongs to this mirror's subset
)

var outcomes = []Outcome{Have, Received, Ready, Applied, Failed, Blocked, Skipped}

// MaxError is the length in bytes to which a report's error text is cut.
const MaxError = 300

// A Report is a mirror's word on where it stands with a module.
type Report struct {
	Module  Module
	Mirror  string // the principal that signs it
	Epoch   Epoch
	Serial  Serial // the outcome is about this serial; for Have the applied one
	Run     uint64 // counts the mirror's reports, so that they can be put in order without a clock
	Outcome Outcome
	Applied Serial        // everything up to this serial is on disk
	Head    Digest        // of the line of the last applied serial, so that two histories cannot hide behind one serial
	Started time.Time     // of the work, whole seconds
	Took    time.Duration // of the work, in milliseconds
	Heard   time.Duration // from the announcement's At to its arrival in the inbox, in milliseconds; by two clocks
	Via     string        // the transport by which the serial came first
	Files   int64         // transferred
	Bytes   int64         // of content received
	Deleted int64         // names removed
	Error   string        // for Failed and Blocked: what, on which path, and what next
}

// Text is the part of the line that is signed.
func (r Report) Text() []byte {
	t := newText(Reply).add("module", r.Module).add("mirror", r.Mirror).add("epoch", r.Epoch).add("serial", r.Serial).
		add("run", r.Run).add("outcome", r.Outcome).add("applied", r.Applied).add("head", r.Head)
	if !r.Started.IsZero() {
		t.add("at", r.Started).add("took", max(milliseconds(r.Took), 0))
	}
	if r.Heard != 0 {
		t.add("heard", milliseconds(r.Heard))
	}
	if r.Via != "" {
		t.add("via", r.Via)
	}
	if r.Files != 0 || r.Bytes != 0 || r.Deleted != 0 {
		t.add("files", r.Files).add("bytes", r.Bytes).add("del", r.Deleted)
	}
	if r.Error != "" {
		t.add("err", escape(cut(r.Error, MaxError)))
	}
	return t.b.Bytes()
}

func parseReport(f fields) (Report, error) {
	var r Report
	for _, err := range []error{
		f.unknown(),
		field(f, "module", ParseModule, &r.Module),
		field(f, "mirror", ParsePrincipal, &r.Mirror),
		field(f, "epoch", ParseEpoch, &r.Epoch),
		field(f, "serial", ParseSerial, &r.Serial),
		field(f, "run", parseUint, &r.Run),
		field(f, "outcome", parseOutcome, &r.Outcome),
		field(f, "applied", ParseSerial, &r.Applied),
		field(f, "head", ParseDigest, &r.Head),
		optional(f, "at", parseTime, &r.Started),
		optional(f, "took", parseTook, &r.Took),
		optional(f, "heard", parseMilliseconds, &r.Heard),
		optional(f, "via", ParsePrincipal, &r.Via),
		optional(f, "files", parseInt, &r.Files),
		optional(f, "bytes", parseInt, &r.Bytes),
		optional(f, "del", parseInt, &r.Deleted),
		optional(f, "err", parseError, &r.Error),
	} {
		if err != nil {
			return Report{}, err
		}
	}
	return r, nil
}

// ParsePrincipal checks the name of a mirror, or of anybody a key can belong to: 1 to 64 of [A-Za-z0-9._@-].
func ParsePrincipal(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-"
	if s == "" || len(s) > 64 || strings.Trim(s, allowed) != "" {
		return "", fmt.Errorf("name %.70q: must be 1 to 64 of [A-Za-z0-9._@-]", s)
	}
	return s, nil
}

func parseOutcome(s string) (Outcome, error) {
	if !slices.Contains(outcomes, Outcome(s)) {
		return "", fmt.Errorf("outcome %.20q is not known", s)
	}
	return Outcome(s), nil
}

func parseUint(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%.30q: must be a decimal number below 2^63", s)
	}
	return n, nil
}

func parseInt(s string) (int64, error) {
	n, err := parseUint(s)
	return int64(n), err
}

// maxMilliseconds bounds took and heard, both ways: a hundred years.
const maxMilliseconds = maxSeconds * 1000

// milliseconds is d as a report says it: two clocks that are far apart must not make the report unreadable.
func milliseconds(d time.Duration) int64 {
	return min(max(d.Milliseconds(), -maxMilliseconds), maxMilliseconds)
}

func parseMilliseconds(s string) (time.Duration, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > maxMilliseconds || n < -maxMilliseconds || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%.30q: must be milliseconds up to %d", s, int64(maxMilliseconds))
	}
	return time.Duration(n) * time.Millisecond, nil
}

func parseTook(s string) (time.Duration, error) {
	d, err := parseMilliseconds(s)
	if err == nil && d < 0 {
		err = fmt.Errorf("%.30q: work cannot take less than no time", s)
	}
	return d, err
}

func parseError(s string) (string, error) {
	text, err := unescape(s)
	if err == nil && (len(text) > MaxError || !utf8.ValidString(text)) {
		err = fmt.Errorf("%.40q: must be UTF-8 of at most %d bytes", s, MaxError)
	}
	return text, err
}

// escape writes s with %XX for all but letters, digits and a few marks, so that it is one word.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func unescape(s string) (string, error) {
	if strings.Contains(s, "+") {
		return "", fmt.Errorf("%.40q: a plus sign must be written %%2B", s)
	}
	return url.QueryUnescape(s)
}

// cut makes s valid UTF-8 of at most n bytes: file names in it may be any bytes.
func cut(s string, n int) string {
	if s = strings.ToValidUTF8(s, "\uFFFD"); len(s) <= n {
		return s
	}
	n -= len("...")
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
