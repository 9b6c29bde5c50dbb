package event_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

var update = flag.Bool("update", false, "write testdata/line and testdata/pathset anew")

// The vectors' key is in testdata/keys. ed25519 signatures are deterministic, so the files can be made again byte by byte.
func vectorKey(seed byte) ssh.Signer {
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), 32)))
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		panic(err)
	}
	return signer
}

var (
	vectorTime = time.Date(2026, 11, 20, 19, 2, 11, 0, time.UTC)
	masterKey  = vectorKey(0)
	mirrorKey  = vectorKey(1)
	oldKey     = vectorKey(2)
	otherKey   = vectorKey(3)
	commandKey = vectorKey(4)
)

func vectorTrust() string {
	line := func(who, options string, key ssh.Signer) string {
		return who + " " + options + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + "\n"
	}
	return "# The trust file of the vectors. Module fedora may be announced by principal master, module epel by principal other; alice may give commands on fedora.\n" +
		line("master", `namespaces="announce@mirrorbus,flip@mirrorbus,head@mirrorbus"`, masterKey) +
		line("mirror1", `namespaces="report@mirrorbus"`, mirrorKey) +
		line("master", `namespaces="announce@mirrorbus",valid-before="20260101Z"`, oldKey) +
		line("other", `namespaces="announce@mirrorbus"`, otherKey) +
		line("alice", `namespaces="command@mirrorbus"`, commandKey)
}

func vectorGate(t testing.TB) event.Gate {
	t.Helper()
	data, err := os.ReadFile("testdata/keys/allowed_signers")
	if err != nil {
		t.Fatal(err)
	}
	trust, problems, err := signers.Parse(strings.NewReader(string(data)), "allowed_signers")
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	all := []event.Kind{event.Change, event.Flip, event.HeadIs}
	return event.Gate{Trust: trust, Grants: []event.Grant{
		{Principal: "master", Modules: []string{"fedora"}, Kinds: all},
		{Principal: "other", Modules: []string{"epel"}, Kinds: all},
		{Principal: "alice", Modules: []string{"fedora"}, Kinds: []event.Kind{event.Ordered}},
	}}
}

// lineVectors makes every vector: its name, what it shows, its verdict (ok, malformed or refused) and the line.
func lineVectors(t *testing.T) []vector {
	set := event.Sum([]byte("a path set"))
	prev := event.Sum([]byte("the line before"))
	change := event.Announcement{Kind: event.Change, Module: "fedora", Epoch: "7c1e9f02", Serial: 1042, At: vectorTime, Count: 1482, Set: set, Prev: prev}
	flip := change
	flip.Kind, flip.NotBefore, flip.Expires = event.Flip, time.Hour, 24*time.Hour
	closed := flip
	closed.Was = 0o750
	head := event.Head{Module: "fedora", Epoch: "7c1e9f02", Serial: 1042, At: vectorTime, TTL: 15 * time.Minute, Last: prev, Manifest: set}
	hold := head
	hold.Hold = 2 * time.Hour
	report := event.Report{Module: "fedora", Mirror: "mirror1", Epoch: "7c1e9f02", Serial: 1042, Run: 77, Outcome: event.Failed, Applied: 1041, Head: prev,
		Started: vectorTime, Took: 1200 * time.Millisecond, Heard: 31 * time.Millisecond, Via: "hub", Files: 3, Bytes: 4096, Deleted: 1,
		Error: "upstream is behind: 100% of releases/43/é"}
	seal := func(m event.Texter, key ssh.Signer) string { return sealAnyText(t, m.Text(), key) }
	text := func(s string) event.Texter { return texter(s) }
	edit := func(m event.Texter, old, new string) event.Texter {
		s := string(m.Text())
		if strings.Count(s, old) != 1 {
			t.Fatalf("%q does not stand once in %s", old, s)
		}
		return text(strings.Replace(s, old, new, 1))
	}
	command := event.Command{Module: "fedora", Master: "master", At: vectorTime, TTL: 10 * time.Minute, Nonce: "0123456789abcdef", Order: event.FlipNow,
		Paths: []string{"releases/43", "-a, b%/é"}}
	good := seal(change, masterKey)
	return []vector{
		{"valid-change", "An announcement of 1,482 changed paths.", "ok", good},
		{"valid-change-first", "The first announcement of an epoch has no line before it.", "ok",
			seal(edit(edit(change, "serial=1042", "serial=1"), "prev="+prev.String(), "prev=-"), masterKey)},
		{"valid-change-without-set", "Anything may have changed: the manifest tells.", "ok", seal(edit(change, "set="+set.String(), "set=-"), masterKey)},
		{"valid-flip", "A release that shows itself an hour after it was announced, or not at all a day later.", "ok", seal(flip, masterKey)},
		{"valid-flip-was", "The same, of paths that the master itself keeps at 0750 until then.", "ok", seal(closed, masterKey)},
		{"valid-head", "The module is at serial 1042.", "ok", seal(head, masterKey)},
		{"valid-head-hold", "The tree is half made: mirrors bring nothing for two hours, or until another head or a change comes.", "ok", seal(hold, masterKey)},
		{"valid-report", "A mirror says why it is not there yet; the text is percent-encoded.", "ok", seal(report, mirrorKey)},
		{"valid-command", "A flip of two paths, asked of the master named master; the paths are percent-encoded.", "ok", seal(command, commandKey)},
		{"valid-unknown-key", "A key that this version does not know is ignored.", "ok", seal(edit(change, " n=", " colour=blue n="), masterKey)},
		{"valid-other-order", "The order of keys does not matter.", "ok", seal(edit(edit(change, " n=1482", ""), "epoch=", "n=1482 epoch="), masterKey)},

		{"malformed-unknown-critical-key", "A key that begins with ! must be understood.", "malformed", seal(edit(change, " n=", " !colour=blue n="), masterKey)},
		{"malformed-key-twice", "", "malformed", seal(edit(change, " n=1482", " n=1482 n=1482"), masterKey)},
		{"malformed-key-missing", "No epoch.", "malformed", seal(edit(change, " epoch=7c1e9f02", ""), masterKey)},
		{"malformed-two-spaces", "", "malformed", seal(edit(change, " n=", "  n="), masterKey)},
		{"malformed-control-byte", "", "malformed", seal(edit(change, "n=1482", "n=1482 x=\x07"), masterKey)},
		{"malformed-newline", "", "malformed", seal(edit(change, " n=1482", "\n n=1482"), masterKey)},
		{"malformed-not-ascii", "", "malformed", seal(edit(change, "n=1482", "n=1482 x=é"), masterKey)},
		{"malformed-serial-zero", "", "malformed", seal(edit(change, "serial=1042", "serial=0"), masterKey)},
		{"malformed-serial-two-to-the-63", "", "malformed", seal(edit(change, "serial=1042", "serial=9223372036854775808"), masterKey)},
		{"malformed-serial-sixteen-digits", "", "malformed", seal(edit(change, "serial=1042", "serial=1000000000000000"), masterKey)},
		{"malformed-serial-leading-zero", "", "malformed", seal(edit(change, "serial=1042", "serial=01042"), masterKey)},
		{"malformed-serial-negative", "", "malformed", seal(edit(change, "serial=1042", "serial=-1"), masterKey)},
		{"malformed-count-too-large", "", "malformed", seal(edit(change, "n=1482", "n=99999999"), masterKey)},
		{"malformed-module-upper-case", "", "malformed", seal(edit(change, "module=fedora", "module=Fedora"), masterKey)},
		{"malformed-module-slash", "", "malformed", seal(edit(change, "module=fedora", "module=../etc"), masterKey)},
		{"malformed-module-61-characters", "", "malformed", seal(edit(change, "module=fedora", "module="+strings.Repeat("m", 61)), masterKey)},
		{"malformed-epoch", "", "malformed", seal(edit(change, "epoch=7c1e9f02", "epoch=7C1E9F02"), masterKey)},
		{"malformed-time", "", "malformed", seal(edit(change, "at=2026-11-20T19:02:11Z", "at=2026-11-20T19:02:11+00:00"), masterKey)},
		{"malformed-digest-padded", "", "malformed", seal(edit(change, "set="+set.String(), "set="+set.String()+"="), masterKey)},
		{"malformed-digest-loose-bits", "The last character carries bits beyond 256.", "malformed",
			seal(edit(change, "set="+set.String(), "set="+set.String()[:42]+"_"), masterKey)},
		{"malformed-prev-of-first", "Serial 1 with a line before it.", "malformed", seal(edit(change, "serial=1042", "serial=1"), masterKey)},
		{"malformed-no-prev", "A later serial without a line before it.", "malformed", seal(edit(change, "prev="+prev.String(), "prev=-"), masterKey)},
		{"malformed-flip-expires-first", "", "malformed", seal(edit(flip, "exp=86400", "exp=60"), masterKey)},
		{"malformed-flip-was-no-octal", "", "malformed", seal(edit(closed, "was=750", "was=0750"), masterKey)},
		{"malformed-flip-was-at-once", "What does not wait has no such time.", "malformed", seal(edit(closed, " nb=3600", ""), masterKey)},
		{"malformed-flip-without-set", "", "malformed", seal(edit(flip, "set="+set.String(), "set=-"), masterKey)},
		{"malformed-head-without-last", "", "malformed", seal(edit(head, "last="+prev.String(), "last=-"), masterKey)},
		{"malformed-hold-zero", "", "malformed", seal(edit(hold, "hold=7200", "hold=0"), masterKey)},
		{"malformed-hold-over-a-day", "", "malformed", seal(edit(hold, "hold=7200", "hold=86401"), masterKey)},
		{"malformed-hold-no-number", "", "malformed", seal(edit(hold, "hold=7200", "hold=2h"), masterKey)},
		{"malformed-hold-with-a-long-ttl", "", "malformed", seal(edit(hold, "ttl=900", "ttl=86401"), masterKey)},
		{"malformed-ttl-zero", "", "malformed", seal(edit(head, "ttl=900", "ttl=0"), masterKey)},
		{"malformed-outcome", "", "malformed", seal(edit(report, "outcome=failed", "outcome=great"), mirrorKey)},
		{"malformed-percent", "", "malformed", seal(edit(report, "100%25", "100%zz"), mirrorKey)},
		{"malformed-kind", "", "malformed", strings.Replace(good, " change ", " order ", 1)},
		{"malformed-version", "", "malformed", strings.Replace(good, "mirrorbus1", "mirrorbus2", 1)},
		{"malformed-signature-short", "", "malformed", good[:len(good)-4]},
		{"malformed-signature-trailing", "", "malformed", good + " more"},
		{"malformed-signed-twice", "A signed line cannot be signed again: its end would be in the middle.", "malformed", seal(text(good), masterKey)},
		{"malformed-line-end-in-signature", "Some base64 readers skip it.", "malformed", strings.Replace(good, " sig=", " sig=\r", 1)},
		{"malformed-run-leading-zero", "", "malformed", seal(edit(report, "run=77", "run=077"), mirrorKey)},
		{"malformed-files-signed-number", "", "malformed", seal(edit(report, "files=3", "files=+3"), mirrorKey)},
		{"malformed-took-negative", "", "malformed", seal(edit(report, "took=1200", "took=-1200"), mirrorKey)},
		{"malformed-error-plus", "A space is %20.", "malformed", seal(edit(report, "upstream%20is", "upstream+is"), mirrorKey)},
		{"malformed-error-not-utf-8", "", "malformed", seal(edit(report, "%C3%A9", "%E9"), mirrorKey)},
		{"malformed-error-301-bytes", "", "malformed", seal(edit(report, "upstream%20is", strings.Repeat("x", 301)), mirrorKey)},
		{"malformed-over-4096-bytes", "", "malformed", strings.Replace(good, " n=", " x="+strings.Repeat("x", 4096)+" n=", 1)},

		{"malformed-command-without-nonce", "", "malformed", seal(edit(command, " nonce=0123456789abcdef", ""), commandKey)},
		{"malformed-command-nonce", "", "malformed", seal(edit(command, "nonce=0123456789abcdef", "nonce=0123456789ABCDEF"), commandKey)},
		{"malformed-command-for-two-days", "", "malformed", seal(edit(command, "exp=600", "exp=172800"), commandKey)},
		{"malformed-command-order", "", "malformed", seal(edit(command, "do=flip", "do=format"), commandKey)},
		{"malformed-command-empty-path", "", "malformed", seal(edit(command, "paths=", "paths=,"), commandKey)},
		{"malformed-command-nul", "", "malformed", seal(edit(command, "paths=", "paths=%00,"), commandKey)},
		{"malformed-command-flip-of-nothing", "", "malformed", seal(edit(command, " paths=releases/43,-a%2C%20b%25/%C3%A9", ""), commandKey)},
		{"malformed-command-to", "", "malformed", seal(edit(command, "to=master", "to=a/b"), commandKey)},

		{"refused-unsigned", "", "refused", string(change.Text())},
		{"refused-signature-of-another-line", "", "refused", strings.Replace(good, "n=1482", "n=1483", 1)},
		{"refused-signature-changed", "", "refused", good[:len(good)-3] + "AAA"},
		{"refused-unknown-key", "", "refused", seal(change, vectorKey(9))},
		{"refused-key-of-another-module", "other may announce epel only.", "refused", seal(change, otherKey)},
		{"refused-module-nobody-announces", "", "refused", seal(edit(change, "module=fedora", "module=debian"), masterKey)},
		{"refused-expired-key", "The key was good until 2026-01-01.", "refused", seal(change, oldKey)},
		{"refused-namespace", "A mirror's key is for reports only.", "refused", seal(change, mirrorKey)},
		{"refused-kind-of-another-namespace", "A change signed as such, shown as a flip.", "refused",
			strings.Replace(strings.Replace(good, " change ", " flip ", 1), " n=1482", "", 1)},
		{"refused-report-for-another-mirror", "", "refused", seal(edit(report, "mirror=mirror1", "mirror=mirror2"), mirrorKey)},
		{"refused-command-by-master", "Who may announce may not command.", "refused", seal(command, masterKey)},
		{"refused-change-by-commander", "Who may command may not announce.", "refused", seal(change, commandKey)},
		{"refused-report-by-master", "", "refused", seal(report, masterKey)},
	}
}

// sealAnyText signs what event.Seal would refuse to.
func sealAnyText(t *testing.T, text []byte, key ssh.Signer) string {
	t.Helper()
	kind := event.Kind(strings.Fields(string(text))[1])
	sig, err := sshsig.Sign(key, kind.Namespace(), text)
	if err != nil {
		t.Fatal(err)
	}
	id, raw, _ := sshsig.Compact(sig)
	b64 := base64.RawURLEncoding
	return fmt.Sprintf("%s key=%s sig=%s", text, b64.EncodeToString(id[:]), b64.EncodeToString(raw[:]))
}

type vector struct{ name, about, expect, body string }

type texter string

func (t texter) Text() []byte { return []byte(t) }

func TestLineVectors(t *testing.T) {
	if *update {
		write(t, "testdata/keys/allowed_signers", vectorTrust())
		writeVectors(t, "testdata/line", lineVectors(t))
	}
	gate := vectorGate(t)
	for _, v := range readVectors(t, "testdata/line") {
		t.Run(v.name, func(t *testing.T) {
			s, err := gate.Open([]byte(v.body), vectorTime)
			checkVerdict(t, v.expect, err)
			if err == nil && string(s.Line) != v.body {
				t.Error("the line was not kept as received")
			}
		})
	}
}

// The files hold what the generator above makes, so neither can rot alone.
func TestLineVectorsAreCurrent(t *testing.T) {
	files := map[string]vector{}
	for _, v := range readVectors(t, "testdata/line") {
		files[v.name] = v
	}
	for _, v := range lineVectors(t) {
		if files[v.name] != v {
			t.Errorf("testdata/line/%s.txt is not what the test makes; run go test -run Vectors -update and look at the difference", v.name)
		}
	}
}

// verdict is what a line was found to be.
func verdict(err error) string {
	switch {
	case errors.Is(err, event.ErrRefused):
		return "refused"
	case errors.Is(err, event.ErrFormat):
		return "malformed"
	case err != nil:
		return "untyped: " + err.Error()
	}
	return "ok"
}

func checkVerdict(t *testing.T, want string, err error) {
	t.Helper()
	if got := verdict(err); got != want {
		t.Errorf("verdict %s, want %s (%v)", got, want, err)
	}
}

func writeVectors(t *testing.T, dir string, vectors []vector) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		about := ""
		if v.about != "" {
			about = "# " + v.about + "\n"
		}
		write(t, filepath.Join(dir, v.name+".txt"), fmt.Sprintf("%sexpect: %s\nbytes: %s\n", about, v.expect, quote(v.body)))
	}
}

func readVectors(t testing.TB, dir string) []vector {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no vectors in %s (%v)", dir, err)
	}
	var all []vector
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		v := vector{name: strings.TrimSuffix(filepath.Base(name), ".txt")}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			if s, ok := strings.CutPrefix(line, "# "); ok {
				v.about = s
			} else if s, ok := strings.CutPrefix(line, "expect: "); ok {
				v.expect = s
			} else if s, ok := strings.CutPrefix(line, "bytes: "); ok {
				v.body = unquote(t, s)
			}
		}
		all = append(all, v)
	}
	return all
}

// quote writes bytes outside printable ASCII, and the backslash, as \xNN.
func quote(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func unquote(t testing.TB, s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		var c byte
		if _, err := fmt.Sscanf(s[i:min(i+4, len(s))], `\x%02x`, &c); err != nil {
			t.Fatalf("%q: %v", s[i:], err)
		}
		b.WriteByte(c)
		i += 3
	}
	return b.String()
}

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
