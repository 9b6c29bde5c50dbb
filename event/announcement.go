package event

import (
	"fmt"
	"strconv"
	"time"
)

// An Announcement says: serial N of the module changed these paths. As a Flip it says that only metadata changed, of content already there.
type Announcement struct {
	Kind   Kind // Change or Flip
	Module Module
	Epoch  Epoch
	Serial Serial
	At     time.Time // when it was journalled, in whole seconds; for people and for expiry, never for order
	Prev   Digest    // of the line of serial N-1; none for the first
	Set    Digest    // of the canonical path set; none means: anything may have changed, look at the manifest
	Count  int       // records in the path set; Change only

	NotBefore time.Duration // Flip only: not to be applied earlier than this after At; whole seconds
	Was       uint32        // Flip with NotBefore only: the permissions that the master's paths keep until then, so that a change that states them corrects nothing; 0: not said
	Expires   time.Duration // Flip only: not to be applied later than this after At; 0 means never
}

// Text is the part of the line that is signed.
func (a Announcement) Text() []byte {
	t := newText(a.Kind).add("module", a.Module).add("epoch", a.Epoch).add("serial", a.Serial).add("at", a.At)
	if a.Kind == Change {
		t.add("n", a.Count)
	}
	t.add("set", a.Set).add("prev", a.Prev)
	if a.Kind == Flip && a.NotBefore > 0 {
		t.add("nb", int64(a.NotBefore/time.Second))
		if a.Was > 0 {
			t.add("was", strconv.FormatUint(uint64(a.Was), 8))
		}
	}
	if a.Kind == Flip && a.Expires > 0 {
		t.add("exp", int64(a.Expires/time.Second))
	}
	return t.b.Bytes()
}

func parseAnnouncement(k Kind, f fields) (Announcement, error) {
	a := Announcement{Kind: k}
	steps := []error{
		f.unknown(),
		field(f, "module", ParseModule, &a.Module),
		field(f, "epoch", ParseEpoch, &a.Epoch),
		field(f, "serial", ParseSerial, &a.Serial),
		field(f, "at", parseTime, &a.At),
		field(f, "set", ParseDigest, &a.Set),
		field(f, "prev", ParseDigest, &a.Prev),
	}
	if k == Change {
		steps = append(steps, field(f, "n", parseCount, &a.Count))
	} else {
		steps = append(steps, optional(f, "nb", parseSeconds, &a.NotBefore), optional(f, "was", parsePermissions, &a.Was), optional(f, "exp", parseSeconds, &a.Expires))
	}
	for _, err := range steps {
		if err != nil {
			return Announcement{}, err
		}
	}
	switch {
	case a.Serial == 0:
		return Announcement{}, malformed("serial 0 is no announcement")
	case (a.Serial == 1) != a.Prev.IsZero():
		return Announcement{}, malformed("serial %d with prev=%s: the first announcement of an epoch, and only it, has none", a.Serial, a.Prev)
	case k == Flip && a.Set.IsZero():
		return Announcement{}, malformed("a flip without a path set")
	case a.Was != 0 && a.NotBefore == 0:
		return Announcement{}, malformed("was=%o in a flip that does not wait", a.Was)
	case a.Expires > 0 && a.Expires <= a.NotBefore:
		return Announcement{}, malformed("flip expires before it may be applied")
	}
	return a, nil
}

// maxSeconds bounds nb and exp: a hundred years.
const maxSeconds = 100 * 366 * 24 * 3600

func parseSeconds(s string) (time.Duration, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || n > maxSeconds || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%.20q: must be seconds from 1 to %d", s, int64(maxSeconds))
	}
	return time.Duration(n) * time.Second, nil
}

func parsePermissions(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil || n == 0 || strconv.FormatUint(n, 8) != s {
		return 0, fmt.Errorf("%.20q: must be permissions in octal from 1 to 7777", s)
	}
	return uint32(n), nil
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > MaxRecords || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%.20q: must be a number up to %d", s, MaxRecords)
	}
	return int(n), nil
}

// A Head says: at this time the module is at serial N. It is signed anew every few minutes, so that silence and replay can be told from
// "nothing changed".
type Head struct {
	Module   Module
	Epoch    Epoch
	Serial   Serial
	At       time.Time
	TTL      time.Duration // the head says nothing about later than At plus TTL; whole seconds
	Last     Digest        // of the line of serial N; none at serial 0
	Manifest Digest        // of the manifest's index as exported; none if there is none yet
	Hold     time.Duration // for so long after At mirrors bring nothing, since the tree is half made; 0: it is not. At most MaxHold, whole seconds
}

// MaxHold bounds how long one head can hold mirrors back. A head that does holds no longer itself, so that its line stays within MaxCompact.
const MaxHold = 24 * time.Hour

// Text is the part of the line that is signed.
func (h Head) Text() []byte {
	t := newText(HeadIs).add("module", h.Module).add("epoch", h.Epoch).add("serial", h.Serial).add("at", h.At).
		add("ttl", int64(h.TTL/time.Second)).add("last", h.Last).add("man", h.Manifest)
	if h.Hold > 0 {
		t.add("hold", int64(h.Hold/time.Second))
	}
	return t.b.Bytes()
}

func parseHead(f fields) (Head, error) {
	var h Head
	for _, err := range []error{
		f.unknown(),
		field(f, "module", ParseModule, &h.Module),
		field(f, "epoch", ParseEpoch, &h.Epoch),
		field(f, "serial", ParseSerial, &h.Serial),
		field(f, "at", parseTime, &h.At),
		field(f, "ttl", parseSeconds, &h.TTL),
		field(f, "last", ParseDigest, &h.Last),
		field(f, "man", ParseDigest, &h.Manifest),
		optional(f, "hold", parseSeconds, &h.Hold),
	} {
		if err != nil {
			return Head{}, err
		}
	}
	switch {
	case (h.Serial == 0) != h.Last.IsZero():
		return Head{}, malformed("head at serial %d with last=%s", h.Serial, h.Last)
	case h.Hold > MaxHold, h.Hold > 0 && h.TTL > MaxHold:
		return Head{}, malformed("head with hold=%d and ttl=%d: neither may be over %d then", h.Hold/time.Second, h.TTL/time.Second, MaxHold/time.Second)
	}
	return h, nil
}

// Expired tells whether the head no longer speaks for now; skew is the clock difference to forgive.
func (h Head) Expired(now time.Time, skew time.Duration) bool {
	return now.After(h.At.Add(h.TTL + skew))
}
