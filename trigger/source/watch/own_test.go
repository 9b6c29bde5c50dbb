package watch

import (
	"fmt"
	"testing"
	"time"
)

// Files that the hub writes into the tree, and announces itself, are not announced by the watcher too, however they change; others of that name are.
func TestWhatTheHubAnnouncesItself(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.write("RECENT-Z.yaml", "old")
		r.mkdir(".mirrorbus")
		r.mkdir("pool")
		r.watch(Options{Backend: backend, Own: []string{"RECENT-Z.yaml", "RECENT.recent"}, Timing: Timing{Quiet: time.Hour, AtMost: time.Hour}})
		for _, c := range []struct {
			name   string
			change func()
			want   []Name
		}{
			{"put in place", func() { r.write(".mirrorbus/.tmp-list", "new"); r.rename(".mirrorbus/.tmp-list", "RECENT-Z.yaml") }, nil},
			{"written", func() { r.write("RECENT-Z.yaml", "newer") }, nil},
			{"made and removed", func() { r.write("RECENT.recent", "x"); r.remove("RECENT.recent") }, nil},
			{"in another folder", func() { r.write("pool/RECENT-Z.yaml", "mine") }, []Name{{Path: "pool/RECENT-Z.yaml"}}},
			{"named otherwise", func() { r.rename("RECENT-Z.yaml", "RECENT-Z.old") }, []Name{{Path: "RECENT-Z.old"}}},
			{"of something else", func() { r.rename("RECENT-Z.old", "RECENT-Z.yaml") }, []Name{{Path: "RECENT-Z.old"}}},
		} {
			n, _ := r.m.times()
			c.change()
			r.sync()
			if got := r.m.names(n); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
				t.Errorf("%s: asked to announce %q, want %q", c.name, got, c.want)
			}
		}
	})
}
