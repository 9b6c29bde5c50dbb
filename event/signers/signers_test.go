package signers_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

const vectors = "../testdata/signers"

// A vector is one file of testdata/signers; its README says how they are read.
type vector struct {
	head  map[string]string
	parts map[string][]byte
}

func readVector(t testing.TB, file string) vector {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := vector{map[string]string{}, map[string][]byte{}}
	for line := range strings.Lines(string(a.Comment)) {
		if k, val, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			v.head[k] = val
		}
	}
	for _, f := range a.Files {
		v.parts[f.Name] = f.Data
	}
	if b64, ok := v.parts["revoked.base64"]; ok {
		krl, err := base64.StdEncoding.DecodeString(string(b64))
		if err != nil {
			t.Fatal(err)
		}
		v.parts["revoked"] = krl
	}
	return v
}

func vectorFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(vectors + "/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", vectors, err)
	}
	return files
}

func TestVectors(t *testing.T) {
	for _, file := range vectorFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			readVector(t, file).run(t)
		})
	}
}

func (v vector) run(t *testing.T) {
	err := v.judge(t)
	var r *signers.Refusal
	switch want := v.head["verdict"]; {
	case want == "good" && err != nil:
		t.Errorf("refused: %v", err)
	case want == "good":
	case !errors.As(err, &r) || string(r.Reason) != want:
		t.Errorf("%v, should be refused as %s", err, want)
	case !strings.Contains(err.Error(), v.head["error"]) || v.head["error"] == "":
		t.Errorf("refused with %q, should say %q", err, v.head["error"])
	}
	want := v.head["verdict"] == "good"
	if k, ok := v.head["ssh-keygen"]; ok {
		want = k == "good"
	}
	dir := t.TempDir()
	q := question{
		allowed: write(t, filepath.Join(dir, "allowed"), v.parts["allowed_signers"]), signature: write(t, filepath.Join(dir, "sig"), v.parts["signature"]),
		message: v.parts["message"], principal: v.head["principal"], namespace: v.head["namespace"], time: v.head["time"],
	}
	if krl, ok := v.parts["revoked"]; ok {
		q.revoked = write(t, filepath.Join(dir, "revoked"), krl)
	}
	if good, output := q.askKeygen(t); good != want {
		t.Errorf("ssh-keygen accepts: %v, the vector says %v\n%s", good, want, output)
	}
}

func (v vector) judge(t *testing.T) error {
	t.Helper()
	file, problems, err := signers.Parse(bytes.NewReader(v.parts["allowed_signers"]), "allowed_signers")
	check(t, err)
	var said []string
	for _, p := range problems {
		said = append(said, p.String())
	}
	if got := strings.Join(said, " | "); !strings.HasPrefix(got, v.head["problem"]) || (got == "") != (v.head["problem"] == "") {
		t.Errorf("problem %q, should begin with %q", got, v.head["problem"])
	}
	if krl, ok := v.parts["revoked"]; ok {
		file.Revoked, err = signers.ParseRevoked(bytes.NewReader(krl), "revoked")
		check(t, err)
	}
	sig, err := sshsig.Unarmor(v.parts["signature"])
	check(t, err)
	at, err := signers.ParseTime(v.head["time"], time.UTC)
	check(t, err)
	return file.VerifyAs(v.head["principal"], sig, v.parts["message"], v.head["namespace"], at)
}

// TestPrincipals checks whose a key is, over several lines and for a certificate.
func TestPrincipals(t *testing.T) {
	key, ca := newKey(t), newKey(t)
	cert := newKey(t).certify(t, ca, "-I", "id", "-n", "mirror1,mirror2,hub")
	file, problems, err := signers.Parse(strings.NewReader(strings.NewReplacer("{key}", key.public, "{ca}", ca.public).Replace(`
alice {key}
alice {key}
alice,bob namespaces="announce@*" {key}
carol namespaces="report@*" {key}
dave valid-before="20200101Z" {key}
mirror*,!mirror2 cert-authority {ca}
`)), "allowed")
	if err != nil || problems != nil {
		t.Fatal(problems, err)
	}
	for _, c := range []struct {
		key  keyFile
		ns   string
		want string
	}{{key, announce, "alice alice,bob"}, {key, report, "alice carol"}, {cert, report, "mirror1"}} {
		who, err := file.Principals(c.key.key(t), c.ns, time.Now())
		if got := strings.Join(who, " "); got != c.want || err != nil {
			t.Errorf("%s: %q, %v; should be %q", c.ns, got, err, c.want)
		}
	}
	if err := file.Permits("", key.key(t), announce, time.Now()); err == nil {
		t.Error("nobody is permitted")
	}
	if keys := file.KeyByID(sshsig.KeyID(key.key(t))); len(keys) != 1 {
		t.Errorf("the key of five lines is found %d times", len(keys))
	}
	if keys := file.KeyByID([8]byte{}); keys != nil {
		t.Errorf("an id of no key finds %v", keys)
	}
}

func TestParseRefusesLargeFile(t *testing.T) {
	big := strings.NewReader(strings.Repeat("#\n", signers.MaxFile/2+1))
	if _, _, err := signers.Parse(big, "allowed"); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
	if _, err := signers.ParseRevoked(strings.NewReader(strings.Repeat("#\n", signers.MaxFile/2+1)), "revoked"); err == nil {
		t.Error("revocation file accepted")
	}
}

// TestMatchIsNotExponential would not end with a matcher that backtracks over every star.
func TestMatchIsNotExponential(t *testing.T) {
	key := newKey(t)
	line := strings.Repeat("*a", 500) + "b " + key.public + "\n"
	file, _, err := signers.Parse(strings.NewReader(line), "allowed")
	check(t, err)
	if err := file.Permits(strings.Repeat("a", 5000), key.key(t), announce, time.Now()); err == nil {
		t.Error("matched")
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range vectorFiles(f) {
		f.Add(readVector(f, file).parts["allowed_signers"])
	}
	for _, tr := range trials {
		f.Add([]byte(strings.ReplaceAll(tr.file, "{key}", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPjHc2YNEDYwp7VlGjSEhHyJK6XI8dyhNRRbHr3BsOT")))
	}
	probe := newKey(f).key(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		file, problems, err := signers.Parse(bytes.NewReader(text), "fuzz")
		check(t, err)
		if n := len(file.Entries) + len(problems); n > bytes.Count(text, []byte("\n"))+1 {
			t.Errorf("%d entries and problems in fewer lines", n)
		}
		for _, e := range file.Entries {
			if e.Key == nil || e.Line < 1 || !e.After.IsZero() && !e.Before.IsZero() && !e.After.Before(e.Before) {
				t.Errorf("entry %+v", e)
			}
			if len(file.KeyByID(sshsig.KeyID(e.Key))) == 0 {
				t.Errorf("line %d: key not found by its id", e.Line)
			}
			_, _ = file.Principals(e.Key, announce, time.Unix(1e9, 0)) // must not panic
		}
		if err := file.Permits("alice", probe, announce, time.Unix(1e9, 0)); err == nil {
			t.Error("a key that is nowhere is permitted")
		}
	})
}
