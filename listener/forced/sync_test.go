package forced

import (
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

func TestWordsOfAPush(t *testing.T) {
	for command, want := range map[string]Told{
		" sync:archive:debian sync:all":                               {Archive: "debian", Whole: true}, // as runmirrors sends it
		" sync:archive: sync:all":                                     {Whole: true},
		" sync:archive:security sync:stage1":                          {Archive: "security"},
		" sync:archive:security sync:stage2":                          {Archive: "security", Whole: true},
		" sync:archive:x sync:callback sync:all":                      {Archive: "x", Whole: true, Callback: true},
		" sync:archive:x sync:callback sync:mhop sync:stage1":         {Archive: "x", Callback: true, Hops: true},
		" sync:archive:x sync:mhop sync:stage2":                       {Archive: "x", Whole: true},
		"sync:all":                                                    {Whole: true},
		"sync:archive:x":                                              {Archive: "x", Whole: true},
		"sync:stage1 sync:stage2":                                     {Whole: true},
		"sync:all  sync:archive:" + strings.Repeat("a.-_9", 12) + " ": {Archive: strings.Repeat("a.-_9", 12), Whole: true},
	} {
		got, err := Parse(command)
		if err != nil || got.Verb != Sync || got.Sync != want {
			t.Errorf("%q is read as %+v, %v; want %+v", command, got, err, want)
		}
	}
}

func TestPushesThatAreRefused(t *testing.T) {
	for _, command := range []string{
		"sync:", "sync:everything", "sync:all;id", "sync:all sync:all", "sync:archive:a sync:archive:b", "sync:archive:../x", "sync:archive:a/b", "sync:archive:$(id)",
		"sync:archive:a\tsync:all", "sync:all\nsync:stage1", "sync:all\r", "sync:archive:a\x00", "sync:all --config=/tmp/x", "sync:all id", "SYNC:ALL", "id sync:all",
		"sync:archive:" + strings.Repeat("a", 65), "sync:all " + strings.Repeat(" ", maxCommand),
	} {
		got, err := Parse(command)
		if err == nil {
			t.Errorf("%.80q is read as %+v", command, got)
			continue
		}
		if text := err.Error() + fault.HintOf(err); len(text) > 500 || strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("%.80q is refused with %q, which is not one short line", command, text)
		}
		if strings.HasPrefix(command, "sync:") && len(command) < maxCommand && fault.StatusOf(err) != NotDone {
			t.Errorf("%.80q is refused with status %d, which runmirrors takes for success", command, fault.StatusOf(err))
		}
	}
}

// No command makes it fail otherwise than with an error, and none that is understood holds a name that could be more than one.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{" sync:archive:debian sync:all", "sync:stage1", "push v1", "have fedora", "mirrorbus1 change", "", "sync:archive:../x", "have\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, command string) {
		o, err := Parse(command)
		if err != nil {
			return
		}
		if strings.ContainsAny(o.Sync.Archive, "/ \t\n$;|&`'\"*?<>()\\") || strings.ContainsAny(string(o.Module), "/ \n") {
			t.Errorf("%q is understood as %+v", command, o)
		}
	})
}
