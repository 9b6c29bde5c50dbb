package signers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// A Reason is the class of a refusal: one word, for metrics and for tests.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	BadSignature   Reason = "bad-signature"
	RevokedKey     Reason = "revoked"
	UnknownKey     Reason = "unknown-key"
	WrongPrincipal Reason = "wrong-principal"
	BadCertificate Reason = "bad-certificate"
	WrongNamespace Reason = "wrong-namespace"
	NotYetValid    Reason = "not-yet-valid"
	Expired        Reason = "expired"
)

// A Refusal says why a signature or a key does not count. Every error of Verify, VerifyAs, Permits and Principals is one.
type Refusal struct {
	Reason Reason
	what   error
}

func (r *Refusal) Error() string { return r.what.Error() }
func (r *Refusal) Unwrap() error { return r.what }

func refuse(why Reason, format string, args ...any) *Refusal {
	return &Refusal{why, fmt.Errorf(format, args...)}
}

// Verify says who may have made sig over message in namespace: the pattern lists of every entry that lets the key sign in that namespace at
// that time, or for a certificate those of its principals that an entry for its authority allows. There is at least one if err is nil.
func (f *File) Verify(sig *sshsig.Signature, message []byte, namespace string, at time.Time) (principals []string, err error) {
	if err := verified(sig, message, namespace); err != nil {
		return nil, err
	}
	return f.Principals(sig.Key, namespace, at)
}

// VerifyAs says whether principal made sig over message in namespace, as ssh-keygen -Y verify -I principal -n namespace -Overify-time=at does.
func (f *File) VerifyAs(principal string, sig *sshsig.Signature, message []byte, namespace string, at time.Time) error {
	if err := verified(sig, message, namespace); err != nil {
		return err
	}
	return f.Permits(principal, sig.Key, namespace, at)
}

func verified(sig *sshsig.Signature, message []byte, namespace string) error {
	if err := sig.Verify(namespace, message); err != nil {
		return &Refusal{BadSignature, err}
	}
	return nil
}

// Permits says whether key, which proved itself in another way, may speak for principal in namespace at that time.
func (f *File) Permits(principal string, key ssh.PublicKey, namespace string, at time.Time) error {
	if principal == "" {
		return refuse(WrongPrincipal, "no principal is named")
	}
	return f.search(key, func(e Entry) *Refusal {
		if !matchList(principal, e.Principals) {
			return refuse(WrongPrincipal, "it is for %q, not for %q", e.Principals, principal)
		}
		if cert, ok := key.(*ssh.Certificate); ok && e.Authority {
			if r := checkCert(cert, principal, at); r != nil {
				return r
			}
		}
		return e.permits(namespace, at)
	})
}

// Principals is Verify for a key that proved itself in another way, for instance by opening an SSH connection.
func (f *File) Principals(key ssh.PublicKey, namespace string, at time.Time) ([]string, error) {
	var found []string
	err := f.search(key, func(e Entry) *Refusal {
		who, r := e.owners(key, at)
		if r == nil {
			r = e.permits(namespace, at)
		}
		if r == nil {
			found = append(found, who...)
		}
		return r
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// owners are those in whose name e lets key sign.
func (e Entry) owners(key ssh.PublicKey, at time.Time) ([]string, *Refusal) {
	cert, ok := key.(*ssh.Certificate)
	if !ok || !e.Authority {
		return []string{e.Principals}, nil
	}
	if r := checkCert(cert, "", at); r != nil {
		return nil, r
	}
	var who []string
	for _, p := range cert.ValidPrincipals {
		if matchList(p, e.Principals) {
			who = append(who, p)
		}
	}
	if who == nil {
		return nil, refuse(WrongPrincipal, "the authority is for %q, the certificate is for %q", e.Principals, cert.ValidPrincipals)
	}
	return who, nil
}

// permits judges what e says of its key, whoever signs.
func (e Entry) permits(namespace string, at time.Time) *Refusal {
	switch at := at.Truncate(time.Second); {
	case e.Namespaces != "" && !matchList(namespace, e.Namespaces):
		return refuse(WrongNamespace, "it is for signatures in namespace %q, not %q", e.Namespaces, namespace)
	case !e.After.IsZero() && at.Before(e.After):
		return refuse(NotYetValid, "it is valid only after %s", e.After.UTC().Format(time.RFC3339))
	case !e.Before.IsZero() && at.After(e.Before):
		return refuse(Expired, "it expired on %s", e.Before.UTC().Format(time.RFC3339))
	}
	return nil
}

// search asks judge about each entry that is about key. One that is not refused is enough; else the refusal that came furthest is returned,
// because that is the line its author meant.
func (f *File) search(key ssh.PublicKey, judge func(Entry) *Refusal) error {
	if err := f.Revoked.Check(key); err != nil {
		return &Refusal{RevokedKey, err}
	}
	var good bool
	var worst *Refusal
	for _, e := range f.about(key) {
		r := judge(e)
		if r == nil {
			good = true
			continue
		}
		r.what = fmt.Errorf("%s: %s:%d: %w", name(key), f.Name, e.Line, r.what)
		if worst == nil || progress(r.Reason) > progress(worst.Reason) {
			worst = r
		}
	}
	switch {
	case good:
		return nil
	case worst != nil:
		return worst
	}
	return f.unknown(key)
}

// about finds the entries that name key, or the authority of a certificate.
func (f *File) about(key ssh.PublicKey) []Entry {
	var found []Entry
	for _, i := range f.byKey[wire(key)] {
		if !f.Entries[i].Authority {
			found = append(found, f.Entries[i])
		}
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		for _, i := range f.byKey[wire(cert.SignatureKey)] {
			if f.Entries[i].Authority {
				found = append(found, f.Entries[i])
			}
		}
	}
	return found
}

// progress orders refusals by how far the search came.
func progress(r Reason) int {
	return slices.Index([]Reason{WrongPrincipal, BadCertificate, WrongNamespace, NotYetValid, Expired}, r)
}

func (f *File) unknown(key ssh.PublicKey) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		return refuse(UnknownKey, "%s: its authority %s has no cert-authority line in %s", name(key), ssh.FingerprintSHA256(cert.SignatureKey), f.Name)
	}
	if len(f.byKey[wire(key)]) > 0 {
		return refuse(UnknownKey, "%s: in %s it is a cert-authority: it issues certificates and signs nothing else", name(key), f.Name)
	}
	return refuse(UnknownKey, "%s has no line in %s", name(key), f.Name)
}

// name is how messages call a key.
func name(key ssh.PublicKey) string {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return "key " + ssh.FingerprintSHA256(key)
	}
	return fmt.Sprintf("certificate %.80q (serial %d) of key %s", cert.KeyId, cert.Serial, ssh.FingerprintSHA256(cert.Key))
}

// checkCert judges a certificate by itself. principal "" stands for any.
func checkCert(cert *ssh.Certificate, principal string, at time.Time) *Refusal {
	now := uint64(max(at.Unix(), 0))
	switch {
	case cert.CertType != ssh.UserCert:
		return refuse(BadCertificate, "it is not a user certificate; issue one without ssh-keygen -h")
	case len(cert.ValidPrincipals) == 0:
		return refuse(BadCertificate, "the certificate names no principals; issue it with ssh-keygen -n")
	case len(cert.CriticalOptions) != 0:
		return refuse(BadCertificate, "the certificate has critical options, which are for logins: %s", optionNames(cert))
	case now < cert.ValidAfter:
		return refuse(NotYetValid, "the certificate is not valid before %s", certTime(cert.ValidAfter))
	case now >= cert.ValidBefore:
		return refuse(Expired, "the certificate expired on %s", certTime(cert.ValidBefore))
	case principal != "" && !slices.Contains(cert.ValidPrincipals, principal):
		return refuse(WrongPrincipal, "the certificate is for %q, not for %q", cert.ValidPrincipals, principal)
	}
	return checkIssuer(cert, at)
}

// checkIssuer verifies the authority's signature on the certificate.
func checkIssuer(cert *ssh.Certificate, at time.Time) *Refusal {
	if cert.Signature.Format == ssh.KeyAlgoRSA {
		return refuse(BadCertificate, "the certificate was issued with SHA-1 (ssh-rsa)")
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return at }}
	if err := checker.CheckCert(cert.ValidPrincipals[0], cert); err != nil {
		return &Refusal{BadCertificate, errors.New(strings.TrimPrefix(err.Error(), "ssh: "))}
	}
	return nil
}

func optionNames(cert *ssh.Certificate) string {
	var names []string
	for n := range cert.CriticalOptions {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func certTime(sec uint64) string {
	if sec > 1<<40 {
		return "the end of time"
	}
	return time.Unix(int64(sec), 0).UTC().Format(time.RFC3339)
}
