package event_test

import (
	"bytes"
	"encoding/base64"
	"slices"
	"testing"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
	"github.com/mirrorbus/mirrorbus/internal/eventtest"
)

// FuzzOpen knows good lines and may change them as it likes: what passes the gate is, but for the form of its signature, one of them.
func FuzzOpen(f *testing.F) {
	signed := map[string]bool{}
	for _, v := range readVectors(f, "testdata/line") {
		f.Add([]byte(v.body))
		if v.expect == "ok" {
			text, _, _ := bytes.Cut([]byte(v.body), []byte(" key="))
			signed[string(text)] = true
		}
	}
	gate := vectorGate(f)
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := gate.Open(line, vectorTime)
		if err != nil {
			checkTyped(t, err)
			return
		}
		text := line[:bytes.LastIndex(line, []byte(" key="))]
		if !signed[string(text)] || s.Digest != event.Sum(text) || !bytes.Equal(s.Line, line) {
			t.Errorf("%q passes, which nobody signed", line)
		}
	})
}

// checkTyped fails unless err says that a line is malformed or refused.
func checkTyped(t *testing.T, err error) {
	t.Helper()
	if got := verdict(err); got != "malformed" && got != "refused" {
		t.Error(got)
	}
}

// FuzzSignature shows one text with the signature over another, or over the same in another namespace, or by a key that may sign something
// else. Only what was signed for just this passes.
func FuzzSignature(f *testing.F) {
	for i, m := range messages("mirror1") {
		f.Add(m.Text(), m.Text(), uint8(i), uint8(0))
		f.Add(m.Text(), m.Text(), uint8(i), uint8(1))
		f.Add(m.Text(), messages("mirror1")[0].Text(), uint8(0), uint8(0))
	}
	gate := vectorGate(f)
	signersOf := []ssh.Signer{masterKey, mirrorKey, otherKey, oldKey, commandKey}
	f.Fuzz(func(t *testing.T, signed, shown []byte, kind, key uint8) {
		namespace := event.Kinds()[int(kind)%len(event.Kinds())].Namespace()
		by := int(key) % len(signersOf)
		sig, err := sshsig.Sign(signersOf[by], namespace, signed)
		if err != nil {
			t.Fatal(err)
		}
		id, raw, ok := sshsig.Compact(sig)
		if !ok {
			t.Fatal("an ed25519 signature has a compact form")
		}
		for _, blob := range [][]byte{raw[:], sig.Marshal()} {
			line := slices.Concat(shown, []byte(" key="+base64.RawURLEncoding.EncodeToString(id[:])+" sig="+base64.RawURLEncoding.EncodeToString(blob)))
			s, err := gate.Open(line, vectorTime)
			if err != nil {
				checkTyped(t, err)
				continue
			}
			want := map[event.Kind]int{event.Change: 0, event.Flip: 0, event.HeadIs: 0, event.Reply: 1, event.Ordered: 4}[s.Kind]
			if s.Kind == event.Change && s.Module() == "epel" {
				want = 2
			}
			if !bytes.Equal(signed, shown) || s.Kind.Namespace() != namespace || by != want {
				t.Errorf("%q, signed in namespace %s by key %d, passes as %q", signed, namespace, by, shown)
			}
		}
	})
}

// sketches are texts for eventtest.Sketch.
var sketches = []string{
	"", "+a\n-b\nDc\n+c/a", ">c a\ndb\nLb/a\nLc/a/b", "ra\n+a/b\n=b\ndb/c", "-a\n-a/b\nMb\n+b/c\nDb/a", "da/b\n+a/b/c/a\n-a/b/a\n>b/a a/c", "+a/b\nMa\n-c\nrb",
}

func at(s event.PathSet, path string) (event.Record, bool) {
	i := slices.IndexFunc(s, func(r event.Record) bool { return r.Path == path })
	if i < 0 {
		return event.Record{}, false
	}
	return s[i], true
}

// closes tells whether the record says that there is no directory at its path.
func closes(r event.Record) bool {
	return r.Op == event.Gone || (r.Op == event.Write || r.Op == event.Meta) && r.Mode&event.ModeType != event.ModeDir
}

// spokenFor tells whether doing what s says takes care of path: it is named, or what is above it is read as a whole, as a level, or goes.
func spokenFor(s event.PathSet, path string) bool {
	return slices.ContainsFunc(s, func(r event.Record) bool {
		switch {
		case r.Path == path:
			return true
		case !event.Under(r.Path, path):
			return false
		case r.Op == event.Level:
			return !bytes.ContainsRune([]byte(path[len(r.Path)+1:]), '/')
		}
		return r.Op == event.Tree || r.Op == event.Renamed || closes(r)
	})
}

// within tells whether the sets speak of path: they name it, or a directory above it as a whole or as a level.
func within(all []event.PathSet, path string) bool {
	return slices.ContainsFunc(all, func(s event.PathSet) bool {
		return slices.ContainsFunc(s, func(r event.Record) bool {
			return r.Path == path || r.From == path || r.Spans() && event.Under(r.Path, path)
		})
	})
}

// FuzzMerge merges what no master would say in a row. All the same: the result is well formed, speaks of nothing that was not spoken of, forgets
// no path, and believes the last word on each.
func FuzzMerge(f *testing.F) {
	for i, a := range sketches {
		for _, b := range sketches {
			f.Add(a, b, sketches[len(sketches)-1-i])
		}
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		all := []event.PathSet{eventtest.Sketch(a), eventtest.Sketch(b), eventtest.Sketch(c)}
		checkMerged(t, all, event.Merge(all...))
		checkMerged(t, all, event.Merge(event.Merge(all[:2]...), all[2]))
		checkMerged(t, all, event.Merge(all[0], event.Merge(all[1:]...)))
	})
}

func checkMerged(t *testing.T, all []event.PathSet, merged event.PathSet) {
	t.Helper()
	if err := merged.Check(); err != nil {
		t.Fatalf("merged of %q: %q: %v", encoded(all), merged.Encode(), err)
	}
	for _, r := range merged {
		if !within(all, r.Path) {
			t.Errorf("%q merged speak of %q", encoded(all), r.Path)
		}
	}
	for i, s := range all {
		for _, r := range s {
			if !takenCare(merged, r.Path, all[i+1:]) {
				t.Errorf("%q merged are %q, where nothing takes care of %q", encoded(all), merged.Encode(), r.Path)
			}
			if i+1 < len(all) && slices.ContainsFunc(all[i+1:], func(later event.PathSet) bool {
				return within([]event.PathSet{later}, r.Path) || implies(later, r.Path)
			}) {
				continue
			}
			if got, ok := at(merged, r.Path); ok && (closes(got) != closes(r) || r.Mode != 0 && !closes(r) && got.Mode != r.Mode) {
				t.Errorf("%q merged are %q: not the last word on %q", encoded(all), merged.Encode(), r.Path)
			}
		}
	}
}

// takenCare tells whether merged takes care of path, or of what one of the later sets says stands above it and is no directory, or none any more:
// nonsense said at once, the truth if said later.
func takenCare(merged event.PathSet, path string, later []event.PathSet) bool {
	return spokenFor(merged, path) || slices.ContainsFunc(later, func(s event.PathSet) bool {
		return slices.ContainsFunc(s, func(r event.Record) bool {
			return closes(r) && event.Under(r.Path, path) && spokenFor(merged, r.Path) || event.Under(r.From, path) && spokenFor(merged, r.From)
		})
	})
}

// implies tells whether s says that path is a directory, by what it names below it, or that what is above is none.
func implies(s event.PathSet, path string) bool {
	return slices.ContainsFunc(s, func(r event.Record) bool {
		return event.Under(path, r.Path) || event.Under(r.Path, path) || event.Under(path, r.From)
	})
}

func encoded(all []event.PathSet) (texts []string) {
	for _, s := range all {
		texts = append(texts, string(s.Encode()))
	}
	return texts
}

// FuzzCondense shortens any set: the result is well formed, takes care of all that was named, and names nothing but what was named and
// directories above it.
func FuzzCondense(f *testing.F) {
	for _, text := range sketches {
		f.Add(text, uint8(0), uint8(2))
		f.Add(text, uint8(1), uint8(9))
	}
	f.Fuzz(func(t *testing.T, text string, perDir, limit uint8) {
		all := []event.PathSet{eventtest.Sketch(text)}
		set := all[0].Encode()
		short, ok := all[0].Condense(int(perDir), int(limit))
		if err := short.Check(); err != nil || ok != (len(short) <= int(limit)) {
			t.Fatalf("%q is condensed to %q: %v, %v", set, short.Encode(), ok, err)
		}
		for _, r := range all[0] {
			if !takenCare(short, r.Path, all) || r.Op == event.Renamed && !spokenFor(short, r.From) && !slices.Contains(short, r) && !belowNone(all[0], r.Path) {
				t.Errorf("%q is condensed to %q, where nothing takes care of %q", set, short.Encode(), r.Path)
			}
		}
		for _, r := range short {
			if !within(all, r.Path) && !implies(all[0], r.Path) {
				t.Errorf("%q is condensed to %q, with %q of its own", set, short.Encode(), r.Path)
			}
		}
		kept, swallowed := all[0].Swallow()
		for _, r := range swallowed {
			if err := kept.Check(); err != nil || !spokenFor(kept, r.Path) {
				t.Errorf("%q swallows %q: %v", set, r.Path, err)
			}
		}
	})
}

// belowNone tells whether s contradicts itself about path: it says that something above is no directory.
func belowNone(s event.PathSet, path string) bool {
	return slices.ContainsFunc(s, func(r event.Record) bool { return closes(r) && event.Under(r.Path, path) })
}

// FuzzHistory lets the fuzzer draw the histories of modules: see the properties.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(nil))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		mergesAsOneByOne(t)
		servesInBetween(t)
		condensesToTheSame(t)
	}))
}
