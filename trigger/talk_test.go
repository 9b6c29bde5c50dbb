package trigger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// asks asks the hub, and returns all that it says.
func asks(t *testing.T, h *trigger.Hub, text string, rights transports.Rights, alone bool) string {
	t.Helper()
	lines, err := h.Ask(t.Context(), transports.Question{Text: text, Account: "alice", Rights: rights, Alone: alone})
	if err != nil {
		return "error: " + err.Error()
	}
	return strings.Join(lines, "\n")
}

// Each command has its answer, and needs its right; where others listen, nothing is said that may be somebody else's to say.
func TestAsk(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	m.write("a", "b")
	check(t, os.Chmod(filepath.Join(m.tree, "b"), 0o600))
	for _, c := range []struct {
		text   string
		rights transports.Rights
		alone  bool
		want   string // the answer begins with it; "" is no answer
	}{
		{"help", transports.MayAsk, false, "master knows !status [module|mirror], !who, !log module, !help, !sync module [path…], !flip module path…"},
		{"status", transports.MayAsk, false, "m: nothing is announced yet"},
		{"status", transports.MayNothing, false, ""},
		{"status", transports.MayNothing, true, "error: this master answers those who are logged in"},
		{"status nowhere", transports.MayAsk, false, ""},
		{"status nowhere", transports.MayAsk, true, `error: this master knows no "nowhere"`},
		{"weather", transports.MayCommand, false, ""},
		{"weather", transports.MayAsk, true, "master knows "},
		{"weather", transports.MayNothing, true, ""},
		{"", transports.MayCommand, false, ""},
		{"sync m a", transports.MayAsk, false, ""},
		{"sync m a", transports.MayAsk, true, "error: !sync module [path…] is for accounts that this master's configuration names"},
		{"flip m a", transports.MayNothing, true, "error: !flip module path… is for accounts"},
		{"sync m a", transports.MayCommand, false, "m 1: announced, 1 path"},
		{"flip m b a", transports.MayCommand, false, "m 2: announced, 2 paths"},
		{"flip m", transports.MayCommand, false, "error: usage: !flip module path…"},
		{"sync m ../x", transports.MayCommand, false, `error: path "../x"`},
		{"sync", transports.MayCommand, true, "error: usage: !sync module [path…]"},
		{"sync m", transports.MayCommand, false, "m: the mirrors are told where it stands"},
		{"log m", transports.MayAsk, false, "m 2 flip: 2 paths, "},
		{"who", transports.MayAsk, false, "master hears 0 mirrors: "},
		{"status m", transports.MayAsk, false, "m 2, announced "},
	} {
		if got := asks(t, h, c.text, c.rights, c.alone); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("!%s: said %q, want %q", c.text, got, c.want)
		}
	}
	if got := asks(t, h, "log m", transports.MayAsk, true); !strings.Contains(got, " by irc alice") {
		t.Errorf("the log says %q", got)
	}
}

// Of a module that only some mirrors may have nobody hears but operators, alone.
func TestAskAboutAnEmbargo(t *testing.T) {
	m := newMaster(t)
	m.conf.Modules[0].Mirrors = []string{"one"}
	h, _ := m.start()
	for _, text := range []string{"status", "status m", "log m", "sync m"} {
		for _, rights := range []transports.Rights{transports.MayAsk, transports.MayCommand} {
			for _, alone := range []bool{true, false} {
				got := asks(t, h, text, rights, alone)
				inner := alone && rights == transports.MayCommand
				if said := strings.HasPrefix(got, "m: ") || text == "log m" && got == "" && inner; said != inner {
					t.Errorf("!%s with rights %d, alone %v: said %q", text, rights, alone, got)
				}
			}
		}
	}
}

// A mirror can be asked for by its name, and is among those who are heard.
func TestAskAboutAMirror(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	m.mirror("one", "").says(event.Report{Module: "m", Epoch: "00000000", Run: 1, Outcome: event.Have})
	m.shows(h, "one behind 0")
	m.publish(h, "a")
	for text, want := range map[string]string{"status one": "one m: behind, has 0, 1 behind for ", "who": "master hears 1 mirrors: one", "status m": "m 1, announced "} {
		if got := asks(t, h, text, transports.MayAsk, false); !strings.HasPrefix(got, want) {
			t.Errorf("!%s: said %q, want %q", text, got, want)
		}
	}
	if got := asks(t, h, "status two", transports.MayAsk, true); got != `error: this master knows no "two"` {
		t.Errorf("said %q", got)
	}
}

// An announcement is told in a sentence, and summed up once when the mirrors have it.
func TestTell(t *testing.T) {
	m := newMaster(t)
	h, _ := m.start()
	one, two := m.mirror("one", ""), m.mirror("two", "")
	have := event.Report{Module: "m", Epoch: "00000000", Run: 1, Outcome: event.Have}
	one.says(have)
	two.says(have)
	m.shows(h, "one behind 0", "two behind 0")
	said := make(chan string, 100)
	run(t, func(ctx context.Context) error {
		return h.Tell(ctx, func(_, text string) error {
			said <- text
			return nil
		})
	})
	hears := func(want string) {
		t.Helper()
		select {
		case got := <-said:
			if !strings.HasPrefix(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
		case <-time.After(bound):
			t.Fatalf("not told %q", want)
		}
	}
	var done trigger.Published
	testenv.WaitFor(t, bound, func() error { // what was announced before is no news
		done = m.publish(h, "a")
		if len(said) == 0 {
			return errors.New("nothing is told")
		}
		return nil
	})
	for newest := fmt.Sprintf("m %d", done.Serial); !strings.HasPrefix(<-said, newest); { //nolint:revive // until all of it is told
	}
	done = m.publish(h, "b", "c", "d", "e")
	hears(fmt.Sprintf("m %d: 4 paths changed: b, c, d and 1 more", done.Serial))
	for _, x := range []*mirror{one, two} {
		x.says(event.Report{Module: "m", Epoch: done.Epoch, Run: 2, Outcome: event.Applied, Serial: done.Serial, Applied: done.Serial})
	}
	hears(fmt.Sprintf("m %d: ", done.Serial))
}
