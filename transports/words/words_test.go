package words_test

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports/words"
)

func TestOf(t *testing.T) {
	said := words.Of([]byte("mirrorbus1 change module=fedora serial=7 x=a=b =y z\nset"))
	if said[""] != "change" || said["module"] != "fedora" || said["serial"] != "7" || said["x"] != "a=b" || len(said) != 4 {
		t.Errorf("got %v", said)
	}
	for _, none := range []string{"", "mirrorbus1", "mirrorbus1\n change", "mirrorbus2 change", "mirrorbus1 change \x07", "mirrorbus1 é", "<html>"} {
		if said := words.Of([]byte(none)); said != nil {
			t.Errorf("%.40q: got %v", none, said)
		}
	}
}

func TestIsLine(t *testing.T) {
	longest := "mirrorbus1 " + strings.Repeat("x", words.MaxLine-len("mirrorbus1 "))
	for text, want := range map[string]bool{longest: true, longest + "x": false, "mirrorbus1 head\n": false, "mirrorbus1 head": true, " mirrorbus1 head": false} {
		if words.IsLine([]byte(text)) != want {
			t.Errorf("%.40q, %d bytes: got %v", text, len(text), !want)
		}
	}
}

func TestHasSet(t *testing.T) {
	for body, want := range map[string]bool{"mirrorbus1 change": false, "mirrorbus1 change\n": false, "mirrorbus1 change\nx": true, "two\nlines": false, "": false} {
		if words.HasSet([]byte(body)) != want {
			t.Errorf("%q: got %v", body, !want)
		}
	}
}
