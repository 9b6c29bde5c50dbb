package event_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

var allKinds = []event.Kind{event.Change, event.Flip, event.HeadIs}

// messages are one of each kind; the report is by mirror.
func messages(mirror string) []event.Texter {
	prev, set := event.Sum([]byte("before")), event.Sum([]byte("set"))
	change := event.Announcement{Kind: event.Change, Module: "fedora", Epoch: "7c1e9f02", Serial: 7, At: vectorTime, Count: 2, Set: set, Prev: prev}
	flip := change
	flip.Kind, flip.Count, flip.NotBefore = event.Flip, 0, time.Hour
	return []event.Texter{
		change, flip,
		event.Head{Module: "fedora", Epoch: "7c1e9f02", Serial: 7, At: vectorTime, TTL: time.Hour, Last: prev},
		event.Report{Module: "fedora", Mirror: mirror, Epoch: "7c1e9f02", Serial: 7, Run: 1, Outcome: event.Applied, Applied: 7, Head: prev},
	}
}

func seal(t testing.TB, m event.Texter, key ssh.Signer) []byte {
	t.Helper()
	line, err := event.Seal(m, key)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// gateOf trusts an allowed_signers file and a revocation file ("" for none) and grants principal everything.
func gateOf(t testing.TB, allowed, revoked, principal string) event.Gate {
	t.Helper()
	trust, problems, err := signers.Parse(strings.NewReader(allowed), "allowed_signers")
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	if revoked != "" {
		if trust.Revoked, err = signers.ParseRevoked(strings.NewReader(revoked), "revoked"); err != nil {
			t.Fatal(err)
		}
	}
	return event.Gate{Trust: trust, Grants: []event.Grant{{Principal: principal, Modules: []string{"*"}, Kinds: allKinds}}}
}

// What any kind of key signs passes a gate that trusts it, as it was received.
func TestSealedLinesPass(t *testing.T) {
	for _, k := range keyKinds(t) {
		t.Run(k.name, func(t *testing.T) {
			gate := gateOf(t, "signer "+k.trust+"\n", "", "signer")
			for _, m := range messages("signer") {
				line := seal(t, m, k.signer)
				s, err := gate.Open(line, vectorTime)
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				if s.Principal != "signer" || !bytes.Equal(s.Line, line) || s.Digest != event.Sum(m.Text()) || s.Module() != "fedora" {
					t.Errorf("opened as %+v", s)
				}
				if compact := len(line) <= len(m.Text())+len(" key=")+11+len(" sig=")+86; compact != k.compact {
					t.Errorf("compact is %v, want %v: %s", compact, k.compact, line)
				}
			}
		})
	}
}

// A signature that a third party can put in another form (an ECDSA s for n-s, a certificate for a renewed one) makes another line, but not
// another statement: no transport can make one announcement look like two that contradict each other.
func TestOneStatementHasOneDigest(t *testing.T) {
	change := messages("m")[0]
	full, err := sshsig.Sign(masterKey, event.Change.Namespace(), change.Text())
	if err != nil {
		t.Fatal(err)
	}
	compact := seal(t, change, masterKey)
	long := fmt.Appendf(nil, "%s key=%s sig=%s", change.Text(), bytes.Fields(compact)[9][len("key="):], base64url(full.Marshal()))
	gate := vectorGate(t)
	a, err1 := gate.Open(compact, vectorTime)
	b, err2 := gate.Open(long, vectorTime)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if a.Digest != b.Digest || bytes.Equal(a.Line, b.Line) {
		t.Errorf("digests %s and %s", a.Digest, b.Digest)
	}
}

func TestSealRefuses(t *testing.T) {
	rsa := keyOf(t, "-t", "rsa", "-b", "1024").signer
	long := event.Report{Module: "fedora", Mirror: "m", Epoch: "7c1e9f02", Outcome: event.Failed, Error: strings.Repeat("\n", 300)}
	if line, err := event.Seal(long, rsa); err != nil || len(line) > event.MaxLine {
		t.Errorf("the longest report: %d bytes, %v", len(line), err)
	}
	for name, m := range map[string]event.Texter{
		"no kind":       texter("mirrorbus1"),
		"unknown kind":  texter("mirrorbus1 order n=1"),
		"empty value":   event.Head{},
		"space in name": event.Head{Module: "a b", Epoch: "7c1e9f02"},
		"too long":      texter("mirrorbus1 change x=" + strings.Repeat("x", event.MaxLine)),
	} {
		if line, err := event.Seal(m, masterKey); err == nil {
			t.Errorf("%s: sealed as %s", name, line)
		}
	}
}

// No line of any kind with one byte changed, anywhere, is from the one who signed it.
func TestNoChangedByteIsAccepted(t *testing.T) {
	gate := vectorGate(t)
	for i, m := range messages("mirror1") {
		key := []ssh.Signer{masterKey, masterKey, masterKey, mirrorKey}[i]
		line := seal(t, m, key)
		if _, err := gate.Open(line, vectorTime); err != nil {
			t.Fatal(err)
		}
		for i := range line {
			for bit := range 8 {
				changed := bytes.Clone(line)
				changed[i] ^= 1 << bit
				if _, err := gate.Open(changed, vectorTime); !errors.Is(err, event.ErrRefused) && !errors.Is(err, event.ErrFormat) {
					t.Errorf("byte %d changed to %q: %v", i, changed[i], err)
				}
			}
		}
	}
}

func TestGrants(t *testing.T) {
	trust := gateOf(t, vectorTrust(), "", "master").Trust
	for _, c := range []struct {
		name    string
		grants  []event.Grant
		passing []event.Kind
	}{
		{"none", nil, nil},
		{"by name", []event.Grant{{"master", []string{"epel", "fedora"}, allKinds}}, allKinds},
		{"by pattern", []event.Grant{{"master", []string{"fed*"}, allKinds}}, allKinds},
		{"by class", []event.Grant{{"master", []string{"[d-f]edora"}, allKinds}}, allKinds},
		{"of another module", []event.Grant{{"master", []string{"fedora-old", "edora", "?"}, allKinds}}, nil},
		{"by a broken pattern", []event.Grant{{"master", []string{"fed[ora"}, allKinds}}, nil},
		{"of one kind", []event.Grant{{"master", []string{"*"}, []event.Kind{event.Flip}}}, []event.Kind{event.Flip}},
		{"kind here, module there", []event.Grant{{"master", []string{"epel"}, allKinds}, {"master", []string{"fedora"}, []event.Kind{event.HeadIs}}},
			[]event.Kind{event.HeadIs}},
		{"of another principal", []event.Grant{{"other", []string{"*"}, allKinds}}, nil},
		{"of two principals", []event.Grant{{"other", []string{"*"}, allKinds}, {"master", []string{"*"}, allKinds}}, allKinds},
	} {
		gate := event.Gate{Trust: trust, Grants: c.grants}
		for i, m := range messages("m")[:3] {
			_, err := gate.Open(seal(t, m, masterKey), vectorTime)
			if want := slices.Contains(c.passing, allKinds[i]); (err == nil) != want || err != nil && !errors.Is(err, event.ErrRefused) {
				t.Errorf("%s: %s: %v, want passing %v", c.name, allKinds[i], err, want)
			}
		}
	}
}

// A report needs no grant: it speaks for the mirror that signs it and for nobody else, whatever is granted.
func TestReportsSpeakForTheirSigner(t *testing.T) {
	gate := vectorGate(t)
	gate.Grants = nil
	report := func(mirror string) []byte { return seal(t, messages(mirror)[3], mirrorKey) }
	if _, err := gate.Open(report("mirror1"), vectorTime); err != nil {
		t.Error(err)
	}
	if _, err := gate.Open(report("mirror2"), vectorTime); !errors.Is(err, event.ErrRefused) {
		t.Errorf("mirror1 speaks for mirror2: %v", err)
	}
}
