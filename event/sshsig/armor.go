package sshsig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

const (
	header   = "-----BEGIN SSH SIGNATURE-----\n"
	footer   = "-----END SSH SIGNATURE-----"
	lineSize = 70 // what ssh-keygen writes

	// maxArmor leaves room for line ends after each 32 characters.
	maxArmor = len(header) + MaxBlob/3*4*33/32 + len(footer) + 64
)

// Armor writes the text form, as ssh-keygen -Y sign does.
func (s *Signature) Armor() []byte {
	b64 := base64.StdEncoding.EncodeToString(s.Marshal())
	out := []byte(header)
	for len(b64) > 0 {
		n := min(lineSize, len(b64))
		out = append(append(out, b64[:n]...), '\n')
		b64 = b64[n:]
	}
	return append(out, footer+"\n"...)
}

// Unarmor reads the text form. Nothing may stand before it, and nothing after it but one line end; lines may end in CR LF.
func Unarmor(text []byte) (*Signature, error) {
	if len(text) > maxArmor {
		return nil, fmt.Errorf("armored signature of %d bytes: at most %d", len(text), maxArmor)
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	body, ok := bytes.CutPrefix(text, []byte(header))
	if !ok {
		return nil, fmt.Errorf("armored signature: the first line must be %s", header[:len(header)-1])
	}
	body, ok = bytes.CutSuffix(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"+footer))
	if !ok {
		return nil, fmt.Errorf("armored signature: the last line must be %s", footer)
	}
	blob, err := base64.StdEncoding.Strict().AppendDecode(nil, body)
	if err != nil || bytes.ContainsRune(body, '\r') {
		return nil, errors.New("armored signature: the text between its first and last line is not base64")
	}
	return Parse(blob)
}
