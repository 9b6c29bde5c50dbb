package hostkey

import (
	"strings"
	"testing"
)

// FuzzPin: a pin that is taken recognises some key and says so in the form in which OpenSSH shows it.
func FuzzPin(f *testing.F) {
	f.Add("SHA256:" + strings.Repeat("A", 43))
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPjHc2YNEDYwp7VlGjSEhHyJK6XI8dyhNRRbHr3BsOT hub")
	f.Add("# hub\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPjHc2YNEDYwp7VlGjSEhHyJK6XI8dyhNRRbHr3BsOT")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Pin(text)
		if err != nil {
			return
		}
		if len(p.want) != 1 || len(p.want[0]) != len("SHA256:")+43 || !strings.HasPrefix(p.want[0], "SHA256:") {
			t.Errorf("%q is read as %+v", text, p)
		}
	})
}
