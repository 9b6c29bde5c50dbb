package signers_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // Berlin on machines without a zone database

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// berlin is Europe/Berlin as ssh-keygen is told of it where there is no zone database.
const berlin = "CET-1CEST,M3.5.0,M10.5.0/3"

// A trial is a trust file, with {key} for the key that signs, {other} for another one and {ca} for an authority of {key}'s.
type trial struct {
	file  string
	times []string // to verify at, in place of 20260601Z; then by the first principal in the first namespace only
}

var trials = []trial{
	{file: `alice@example.org {key}`},
	{file: `alice@example.org {key} a comment, with "quotes`},
	{file: "  \talice@example.org \t {key}"},
	{file: "alice@example.org {key}\r\n"},
	{file: `alice@example.org {other}`},
	{file: ``},
	{file: "# comment\n\n   \n \t# more\nalice@example.org {key}\n"},
	// principals
	{file: `*@example.org {key}`},
	{file: `*@example.??? {key}`},
	{file: `alice@example.or {key}`},
	{file: `*alice*@*example*.org {key}`},
	{file: `* {key}`},
	{file: `?* {key}`},
	{file: `bob,alice@example.org {key}`},
	{file: `bob,,alice@example.org, {key}`},
	{file: `!alice@example.org,* {key}`},
	{file: `*,!alice@example.org {key}`},
	{file: `!bob {key}`},
	{file: `!!bob,* {key}`},
	{file: `"alice@example.org" {key}`},
	{file: `"alice@example.org,bob" {key}`},
	{file: `"alice@example.org bob" {key}`},
	{file: `"alice@example.org"{key}`},
	{file: `alice"@example.org" {key}`},
	{file: `al"ice@exa"mple.org {key}`},
	{file: `"alice@example.org {key}`},
	{file: `"" {key}`},
	{file: `alice@example.org`},
	{file: strings.Repeat("x", 1022) + `,alice@example.org {key}`},
	{file: strings.Repeat("x", 1023) + `,alice@example.org {key}`},
	{file: `alice@example.org,!` + strings.Repeat("x", 1023) + ` {key}`},
	// namespaces
	{file: `alice@example.org namespaces="announce@mirrorbus" {key}`},
	{file: `alice@example.org namespaces="*@mirrorbus" {key}`},
	{file: `alice@example.org namespaces="file,git,report@*" {key}`},
	{file: `alice@example.org namespaces="!report@mirrorbus,*" {key}`},
	{file: `alice@example.org NameSpaces="announce@mirrorbus" {key}`},
	{file: `alice@example.org namespaces="Announce@mirrorbus" {key}`},
	{file: `alice@example.org namespaces="a \"b,*" {key}`},
	{file: `alice@example.org namespaces="a b,announce@mirrorbus" {key}`},
	{file: `alice@example.org namespaces="" {key}`},
	{file: `alice@example.org namespaces=announce@mirrorbus {key}`},
	{file: `alice@example.org namespaces="announce@mirrorbus {key}`},
	{file: `alice@example.org namespaces="*",namespaces="*" {key}`},
	{file: `alice@example.org namespaces = "*" {key}`},
	// options
	{file: `alice@example.org modules="fedora" {key}`},
	{file: `alice@example.org namespaces="*",modules="fedora" {key}`},
	{file: `alice@example.org namespaces="*"x {key}`},
	{file: `alice@example.org cert-authority {key}`},
	{file: `alice@example.org cert-authorityx {key}`},
	{file: `alice@example.org no-cert-authority {key}`},
	{file: `alice@example.org ,namespaces="*" {key}`},
	{file: `alice@example.org namespaces="*",,valid-after="2020" {key}`},
	{file: `alice@example.org namespaces="*",,valid-after="20200101" {key}`},
	{file: `alice@example.org namespaces="*", {key}`},
	// bad lines do not hide good ones
	{file: "garbage\nalice@example.org {key}"},
	{file: "alice@example.org ssh-ed25519 AAAA\nalice@example.org {key}"},
	{file: "alice@example.org foo=\"bar\" {key}\nalice@example.org {key}"},
	{file: "alice@example.org ssh-rsa {base64}\n"},
	{file: "alice@example.org ssh-ed25519 ssh-ed25519 {base64}\n"},
	{file: "alice@example.org ssh-ed25519\t\t{base64}\tcomment\n"},
	{file: "alice@example.org SSH-ED25519 {base64}\n"},
	{file: "alice@example.org ssh-ed25519 {base64}=\n"},
	{file: "bob {key}\nalice@example.org {key}"},
	{file: "alice@example.org namespaces=\"report@*\" {key}\nalice@example.org namespaces=\"announce@*\" {key}"},
	// times
	{`alice@example.org valid-after="20260601Z" {key}`, []string{"20260531235959Z", "20260601Z", "20260601000001Z"}},
	{`alice@example.org valid-before="20260601Z" {key}`, []string{"20260531235959Z", "20260601Z", "20260601000001Z"}},
	{`alice@example.org valid-after="202606011200z",valid-before="20260601120005UTC" {key}`, []string{"20260601115959Z", "20260601120000Z", "20260601120006Z"}},
	{"alice@example.org valid-before=\"20260101Z\" {key}\nalice@example.org {key}", []string{"20260601Z"}},
	{`alice@example.org valid-after="20260101" {key}`, []string{"20251231225959Z", "20251231230000Z"}},
	{`alice@example.org valid-after="20260701" {key}`, []string{"20260630215959Z", "20260630220000Z", "20260630225959Z", "20260630230000Z"}},
	{`alice@example.org valid-after="202603290230" {key}`, []string{"20260329002959Z", "20260329003000Z", "20260329012959Z", "20260329013000Z"}},
	{`alice@example.org valid-after="202610250230" {key}`, []string{"20261025002959Z", "20261025003000Z", "20261025012959Z", "20261025013000Z"}},
	{`alice@example.org valid-after="20260231Z" {key}`, []string{"20260302235959Z", "20260303Z"}},
	{`alice@example.org valid-after="20251231235960Z" {key}`, []string{"20251231235959Z", "20260101Z"}},
	{`alice@example.org valid-after="20261301Z" {key}`, nil},
	{`alice@example.org valid-after="20260132Z" {key}`, nil},
	{`alice@example.org valid-after="202601012400Z" {key}`, nil},
	{`alice@example.org valid-after="20260101235962Z" {key}`, nil},
	{`alice@example.org valid-after="2020-01-01" {key}`, nil},
	{`alice@example.org valid-after="2020-1-1" {key}`, nil},
	{`alice@example.org valid-after="19700101Z" {key}`, nil},
	{`alice@example.org valid-after="19690101Z" {key}`, nil},
	{`alice@example.org valid-after="19700102Z" {key}`, nil},
	{`alice@example.org valid-after="Z" {key}`, nil},
	{`alice@example.org valid-after="" {key}`, nil},
	{`alice@example.org valid-after="20200101",valid-after="20200101" {key}`, nil},
	{`alice@example.org valid-after="20270101",valid-before="20200101" {key}`, nil},
	{`alice@example.org valid-after="20200101Z",valid-before="20200101Z" {key}`, nil},
	{`alice@example.org valid-before=20990101 {key}`, nil},
}

// TestAgreesWithKeygen asks ssh-keygen -Y verify and this package the same questions.
func TestAgreesWithKeygen(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newKey(t)
	runTrials(t, trials, key, []string{"alice@example.org", "Alice@example.org", "bob"}, []string{announce, report}, strings.NewReplacer(
		"{key}", key.public, "{other}", other.public, "{base64}", strings.Fields(key.public)[1]))
}

var certTrials = []trial{
	{file: `mirror1 cert-authority {ca}`},
	{file: `mirror* cert-authority {ca}`},
	{file: `*,!mirror2 cert-authority {ca}`},
	{file: `mirror* CERT-AUTHORITY,namespaces="report@mirrorbus" {ca}`},
	{file: `mirror* namespaces="report@mirrorbus",cert-authority {ca}`},
	{file: `mirror* {ca}`},
	{file: `mirror* {key}`},
	{file: `mirror* cert-authority {key}`},
	{file: `mirror* {cert}`},
	{file: `mirror* cert-authority {other}`},
	{file: "mirror* cert-authority {other}\nmirror* cert-authority {ca}"},
	{`mirror* cert-authority,valid-before="20260601Z" {ca}`, []string{"20260601Z", "20260602Z"}},
	{`mirror* cert-authority {ca}`, []string{"20251231235959Z", "20260101Z", "20261231235959Z", "20270101Z"}},
}

// TestCertificatesAgreeWithKeygen does the same for certificates, by authorities of three kinds.
func TestCertificatesAgreeWithKeygen(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"ed25519": nil, "ecdsa": {"-t", "ecdsa"}, "rsa": {"-t", "rsa", "-b", "3072"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca, key, other := newKey(t, args...), newKey(t, args...), newKey(t)
			cert := key.certify(t, ca, "-I", "id", "-z", "7", "-n", "mirror1,mirror2", "-V", "20260101Z:20270101Z")
			runTrials(t, certTrials, cert, []string{"mirror1", "mirror2", "mirror3"}, []string{report, announce}, strings.NewReplacer(
				"{key}", key.public, "{other}", other.public, "{ca}", ca.public, "{cert}", cert.public))
		})
	}
	t.Run("host certificate", func(t *testing.T) {
		ca, key := newKey(t), newKey(t)
		runTrials(t, certTrials[:1], key.certify(t, ca, "-h", "-I", "id", "-n", "mirror1"), []string{"mirror1"}, []string{report},
			strings.NewReplacer("{ca}", ca.public))
	})
	t.Run("without principals", func(t *testing.T) {
		ca, key := newKey(t), newKey(t)
		runTrials(t, certTrials[:1], key.certify(t, ca, "-I", "id"), []string{"mirror1"}, []string{report}, strings.NewReplacer("{ca}", ca.public))
	})
}

func runTrials(t *testing.T, trials []trial, key keyFile, principals, namespaces []string, fill *strings.Replacer) {
	dir := t.TempDir()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	sigs := map[string]*sshsig.Signature{}
	for _, ns := range namespaces {
		sigs[ns] = key.sign(t, ns)
		write(t, filepath.Join(dir, ns), sigs[ns].Armor())
	}
	for _, tr := range trials {
		text := []byte(fill.Replace(tr.file))
		file, _, err := signers.ParseIn(bytes.NewReader(text), "allowed", zone)
		if err != nil {
			t.Fatal(err)
		}
		q := question{allowed: write(t, filepath.Join(dir, "allowed"), text), message: message, tz: berlin}
		who, what := principals, namespaces
		if tr.times == nil {
			tr.times = []string{"20260601Z"}
		} else {
			who, what = who[:1], what[:1]
		}
		for _, q.principal = range who {
			for _, q.namespace = range what {
				for _, q.time = range tr.times {
					q.signature = filepath.Join(dir, q.namespace)
					compare(t, q, tr.file, file, sigs[q.namespace])
				}
			}
		}
	}
}

// compare asks both and compares.
func compare(t *testing.T, q question, file string, f *signers.File, sig *sshsig.Signature) {
	t.Helper()
	at, err := signers.ParseTime(q.time, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	err = f.VerifyAs(q.principal, sig, q.message, q.namespace, at)
	good, output := q.askKeygen(t)
	if good != (err == nil) {
		t.Errorf("%.200s\nas %s in %s at %s: ssh-keygen says %v, this package %v\n%s", file, q.principal, q.namespace, q.time, good, err, output)
	}
	if r := new(signers.Refusal); err != nil && !errors.As(err, &r) {
		t.Errorf("%v is not a Refusal", err)
	}
	if who, listErr := f.Verify(sig, q.message, q.namespace, at); err == nil && (listErr != nil || len(who) == 0) {
		t.Errorf("%.200s\nlets %s sign but Verify says %q, %v", file, q.principal, who, listErr)
	}
}
