package mail_test

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

const goodConf = `
smtp = "mail.example.org:587"
from = "mirrorbus@mirror1.example.org"
to   = ["mirrorbus@master.example.org"]
lmtp = "/run/mirrorbus/mail.sock"
`

// TestConfigFaults: each fault is said with its key.
func TestConfigFaults(t *testing.T) {
	for _, c := range []struct{ was, now, want string }{
		{"", "", ""},
		{`"mail.example.org:587"`, `"mail.example.org"`, "smtp"},
		{`lmtp = "/run/mirrorbus/mail.sock"`, ``, "lmtp"},
		{`"/run/mirrorbus/mail.sock"`, `"192.0.2.1:24"`, "lmtp"},
		{`"/run/mirrorbus/mail.sock"`, `"127.0.0.1:2424"`, ""},
		{`from = "mirrorbus@mirror1.example.org"`, `from = "M <mirrorbus@mirror1.example.org>"`, "from"},
		{`from = "mirrorbus@mirror1.example.org"`, `from = "a@b\r\nBcc: c@d"`, "from"},
		{`["mirrorbus@master.example.org"]`, `[]`, "to"},
		{`["mirrorbus@master.example.org"]`, `["a@b.test", "A@b.test"]`, "twice"},
		{`["mirrorbus@master.example.org"]`, `["a@b.test> SIZE=1"]`, "to"},
		{"lmtp =", "tls = \"none\"\nlmtp =", "another host"},
		{"lmtp =", "tls = \"none\"\nplaintext = true\nlmtp =", ""},
		{"lmtp =", "tls = \"maybe\"\nlmtp =", "tls"},
		{"lmtp =", "user = \"me\"\nlmtp =", "password_file"},
		{"lmtp =", "timeout = \"1ms\"\nlmtp =", "timeout"},
		{"lmtp =", "imap = \"127.0.0.1:993\"\nimap_user = \"u\"\nimap_password_file = \"PW\"\nimap_idle = \"1h\"\nlmtp =", "imap_idle"},
		{"lmtp =", "max_sessions = 0\nlmtp =", "max_sessions"},
	} {
		text := strings.Replace(goodConf, c.was, c.now, 1)
		err := config.Decode("x.toml", []byte(text), mail.DefaultMirrorConfig())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q for %q: %v, want %q", c.now, c.was, err, c.want)
		}
	}
}
