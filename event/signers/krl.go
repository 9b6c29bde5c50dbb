package signers

import (
	"crypto/sha1" //nolint:gosec // KRLs name keys by it
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ssh"
)

const (
	krlMagic   = "SSHKRL\n\x00"
	krlVersion = 1
	maxBitmap  = 2048 // bytes, as in OpenSSH
)

// Sections of a KRL, and sections of its certificate sections (PROTOCOL.krl).
const (
	krlCertificates = 1
	krlKeys         = 2
	krlSHA1         = 3
	krlSignature    = 4
	krlSHA256       = 5
	krlExtension    = 255

	certSerials   = 0x20
	certRange     = 0x21
	certBitmap    = 0x22
	certKeyID     = 0x23
	certExtension = 0x39
)

var errKRLShort = errors.New("cut short")

// parseKRL reads a KRL. What it keeps takes no more memory than a small multiple of data.
func parseKRL(data []byte) (*Revoked, error) {
	in := cryptobyte.String(data[len(krlMagic):])
	var format uint32
	var number, made, flags uint64
	var reserved, comment []byte
	if !in.ReadUint32(&format) {
		return nil, errKRLShort
	}
	if format != krlVersion {
		return nil, fmt.Errorf("format %d: only %d is known", format, krlVersion)
	}
	if !in.ReadUint64(&number) || !in.ReadUint64(&made) || !in.ReadUint64(&flags) || !readString(&in, &reserved) || !readString(&in, &comment) {
		return nil, errKRLShort
	}
	r := newRevoked()
	for !in.Empty() {
		if err := r.addSection(&in); err != nil {
			return nil, err
		}
	}
	for _, certs := range r.issued {
		certs.settle()
	}
	return r, nil
}

func (r *Revoked) addSection(in *cryptobyte.String) error {
	kind, body, err := readSection(in)
	if err != nil {
		return err
	}
	switch kind {
	case krlCertificates:
		return r.addCertificates(body)
	case krlKeys:
		return addStrings(body, r.keys, 0)
	case krlSHA1:
		return addStrings(body, r.sha1s, sha1.Size)
	case krlSHA256:
		return addStrings(body, r.sha256s, sha256.Size)
	case krlExtension:
		return skipExtension(body)
	case krlSignature:
		return errors.New("signed KRLs are not supported; make it without a signature")
	default:
		return fmt.Errorf("section %d is not known", kind)
	}
}

func (r *Revoked) addCertificates(in cryptobyte.String) error {
	var ca, reserved []byte
	if !readString(&in, &ca) || !readString(&in, &reserved) {
		return errKRLShort
	}
	authority := ""
	if len(ca) > 0 {
		key, err := ssh.ParsePublicKey(ca)
		if err != nil {
			return fmt.Errorf("certificate authority: %w", err)
		}
		authority = wire(key)
	}
	certs := r.issued[authority]
	if certs == nil {
		certs = &revokedCerts{keyIDs: map[string]bool{}}
		r.issued[authority] = certs
	}
	for !in.Empty() {
		if err := certs.addSection(&in); err != nil {
			return err
		}
	}
	return nil
}

func (c *revokedCerts) addSection(in *cryptobyte.String) error {
	kind, body, err := readSection(in)
	if err != nil {
		return err
	}
	switch kind {
	case certSerials:
		return c.addSerials(body)
	case certRange:
		return c.addRange(body)
	case certBitmap:
		return c.addBitmap(body)
	case certKeyID:
		return addStrings(body, c.keyIDs, 0)
	case certExtension:
		return skipExtension(body)
	default:
		return fmt.Errorf("certificate section %#x is not known", kind)
	}
}

func (c *revokedCerts) addSerials(in cryptobyte.String) error {
	for !in.Empty() {
		var n uint64
		if !in.ReadUint64(&n) {
			return errKRLShort
		}
		if n == 0 {
			return errors.New("serial 0 cannot be revoked")
		}
		c.spans = append(c.spans, span{n, n})
	}
	return nil
}

func (c *revokedCerts) addRange(in cryptobyte.String) error {
	var s span
	if !in.ReadUint64(&s.lo) || !in.ReadUint64(&s.hi) || !in.Empty() {
		return errors.New("serial range is not two numbers")
	}
	if s.lo == 0 || s.lo > s.hi {
		return fmt.Errorf("serial range %d to %d", s.lo, s.hi)
	}
	c.spans = append(c.spans, s)
	return nil
}

func (c *revokedCerts) addBitmap(in cryptobyte.String) error {
	var b bitmap
	if !in.ReadUint64(&b.base) || !readString(&in, &b.bits) || !in.Empty() {
		return errors.New("serial bitmap is not a number and a bitmap")
	}
	if len(b.bits) > 0 && b.bits[0] >= 0x80 {
		return errors.New("serial bitmap is a negative number")
	}
	for len(b.bits) > 0 && b.bits[0] == 0 {
		b.bits = b.bits[1:]
	}
	if len(b.bits) == 0 {
		return nil
	}
	if len(b.bits) > maxBitmap {
		return fmt.Errorf("serial bitmap of %d bytes: at most %d", len(b.bits), maxBitmap)
	}
	highest := uint64(len(b.bits))*8 - uint64(bits.LeadingZeros8(b.bits[0])) - 1
	if b.base > math.MaxUint64-highest {
		return errors.New("serial bitmap goes beyond the largest serial")
	}
	if b.has(0) {
		return errors.New("serial 0 cannot be revoked")
	}
	c.bits = append(c.bits, b)
	return nil
}

// addStrings adds each string of a section to set; size is what each must have, 0 for any.
func addStrings(in cryptobyte.String, set map[string]bool, size int) error {
	for !in.Empty() {
		var s []byte
		if !readString(&in, &s) {
			return errKRLShort
		}
		if size != 0 && len(s) != size {
			return fmt.Errorf("fingerprint of %d bytes: must be %d", len(s), size)
		}
		set[string(s)] = true
	}
	return nil
}

// skipExtension passes over an extension unless it is marked as one that must be understood.
func skipExtension(in cryptobyte.String) error {
	var name, body []byte
	var critical uint8
	if !readString(&in, &name) || !in.ReadUint8(&critical) || !readString(&in, &body) || !in.Empty() {
		return errors.New("extension is not a name, a flag and a body")
	}
	if critical != 0 {
		return fmt.Errorf("extension %.80q is critical and not known", name)
	}
	return nil
}

func readSection(in *cryptobyte.String) (kind uint8, body cryptobyte.String, err error) {
	var b []byte
	if !in.ReadUint8(&kind) || !readString(in, &b) {
		return 0, nil, errKRLShort
	}
	return kind, b, nil
}

// readString reads a length and as many bytes, which stay part of in.
func readString(in *cryptobyte.String, out *[]byte) bool {
	var n uint32
	return in.ReadUint32(&n) && uint64(n) <= uint64(len(*in)) && in.ReadBytes(out, int(n))
}
