package ssh_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

// The words that mirrors are asked with.
const (
	stage1 = "sync:archive:debian sync:stage1"
	stage2 = "sync:archive:debian sync:stage2"
)

// inStages starts a master that pushes mirrors for the module debian. A way is one of runmirrors, a mirror without one is pushed at once.
func inStages(t *testing.T, wait time.Duration, mirrors []*told, ways ...string) *side[*ssh.Master] {
	t.Helper()
	c := ssh.DefaultMasterConfig()
	c.User, c.RetryMax, c.StageWait = mirrors[0].sshd.User, config.Duration{Duration: 200 * time.Millisecond}, config.Duration{Duration: wait}
	known := filepath.Join(t.TempDir(), "known")
	var keys []byte
	for i, m := range mirrors {
		text, err := os.ReadFile(m.sshd.KnownHosts)
		must(t, err)
		keys = append(keys, text...)
		c.Mirrors = append(c.Mirrors, ssh.MirrorAddress{Name: fmt.Sprint("m", i+1), Address: fmt.Sprint("127.0.0.1:", m.sshd.Port), Keys: []config.Path{config.Path(m.sshd.KeyFile)},
			Speaks: "ftpsync", Archives: []string{"debian"}, Push: ways[i]})
	}
	must(t, os.WriteFile(known, keys, 0o600))
	c.KnownHosts = config.Path(known)
	m := start(t, reports, func(e transports.Env) (*ssh.Master, error) { return ssh.NewMaster(*c, e) })
	m.isConnected(1)
	return m
}

// wasAsked waits until a mirror was asked for something so often.
func wasAsked(t *testing.T, m *side[*ssh.Master], r *told, words string, times int) {
	t.Helper()
	m.await(fmt.Sprintf("asked %q %d times, but %q", words, times, r.asked()), func() bool {
		return len(slices.DeleteFunc(r.asked(), func(w string) bool { return w != words })) >= times
	})
}

func allDone(m *side[*ssh.Master]) {
	m.t.Helper()
	m.await("all is done", func() bool { return strings.Contains(note(m), "each has done what it was last told") })
}

// Mirrors that are pushed in stages show a change when all of them have its content. One that is pushed at once neither waits nor is waited for.
func TestStagesWaitForEachOther(t *testing.T) {
	quick, slow, once := newTold(t), newTold(t), newTold(t)
	m := inStages(t, time.Hour, []*told{quick, slow, once}, "staged", "mhop", "all")
	for round := 1; round <= 2; round++ {
		slow.put("hold", "")
		once.put("hold", "")
		must(t, m.transport.Publish(t.Context(), msg(debian, fmt.Sprint("e.", round))))
		m.await("waiting", func() bool {
			return strings.Contains(note(m), "m1 (debian) has the content, and waits for the others; m2 (debian) is at work; m3 (debian) is at work")
		})
		wasAsked(t, m, slow, "sync:archive:debian sync:mhop sync:stage1", round)
		if n := len(quick.asked()); n != 2*round-1 {
			t.Errorf("round %d: asked %q while another is at its first stage", round, quick.asked())
		}
		must(t, os.Remove(filepath.Join(slow.dir, "hold")))
		wasAsked(t, m, quick, stage2, round)
		wasAsked(t, m, slow, "sync:archive:debian sync:mhop sync:stage2", round)
		must(t, os.Remove(filepath.Join(once.dir, "hold")))
		allDone(m)
	}
	for name, c := range map[string]struct {
		r    *told
		want []string
	}{
		"staged": {quick, []string{stage1, stage2, stage1, stage2}},
		"mhop": {slow, []string{"sync:archive:debian sync:mhop sync:stage1", "sync:archive:debian sync:mhop sync:stage2",
			"sync:archive:debian sync:mhop sync:stage1", "sync:archive:debian sync:mhop sync:stage2"}},
		"all": {once, []string{"sync:archive:debian sync:all", "sync:archive:debian sync:all"}},
	} {
		if got := c.r.asked(); !slices.Equal(got, c.want) {
			t.Errorf("%s: asked %q, want %q", name, got, c.want)
		}
	}
	if n := m.transport.Counters(); n["pushes"] != 6 || n["pushes failed"] != 0 {
		t.Errorf("%v", n)
	}
}

// A mirror that cannot be brought to its first stage is waited for by nobody, is said to be behind, and comes when it can. Until then the transport is
// degraded.
func TestAMirrorThatFailsItsFirstStageHoldsNobodyUp(t *testing.T) {
	well, ill := newTold(t), newTold(t)
	ill.put("status", "3")
	m := inStages(t, time.Hour, []*told{well, ill}, "staged", "staged")
	must(t, m.transport.Publish(t.Context(), msg(debian, "e.1")))
	wasAsked(t, m, well, stage2, 1)
	m.await("told so", func() bool {
		return strings.Contains(strings.Join(m.transport.Degraded(), "\n"), `m2 (debian) was not brought up to date: archive "debian", stage1: the mirror's command ended with status 3`)
	})
	must(t, m.transport.Publish(t.Context(), msg(debian, "e.2")))
	wasAsked(t, m, well, stage2, 2)
	if slices.Contains(ill.asked(), stage2) {
		t.Errorf("after a first stage that failed: asked %q", ill.asked())
	}
	must(t, os.Remove(filepath.Join(ill.dir, "status")))
	wasAsked(t, m, ill, stage2, 1)
	allDone(m)
	if got := m.transport.Degraded(); len(got) > 0 {
		t.Errorf("degraded afterwards: %q", got)
	}
}

// A mirror whose first stage does not end is waited for as long as stage_wait, and no longer.
func TestAMirrorThatIsSlowIsNotWaitedForEver(t *testing.T) {
	quick, slow := newTold(t), newTold(t)
	slow.put("hold", "")
	m := inStages(t, 300*time.Millisecond, []*told{quick, slow}, "staged", "staged")
	must(t, m.transport.Publish(t.Context(), msg(debian, "e.1")))
	wasAsked(t, m, quick, stage2, 1)
	m.logs("without=m2")
	if slices.Contains(slow.asked(), stage2) {
		t.Errorf("in its first stage: asked %q", slow.asked())
	}
	must(t, os.Remove(filepath.Join(slow.dir, "hold")))
	wasAsked(t, m, slow, stage2, 1)
	allDone(m)
}

// lockedMarks are bookmarks that several set.
type lockedMarks struct {
	mu sync.Mutex
	marks
}

func (m *lockedMarks) Bookmark(ctx context.Context, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks.Bookmark(ctx, name)
}

func (m *lockedMarks) SetBookmark(ctx context.Context, name, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks.SetBookmark(ctx, name, text)
}

// A master that starts does not wait for a mirror that has everything already.
func TestStagesAfterAStart(t *testing.T) {
	has, lacks := newTold(t), newTold(t)
	m := inStages(t, time.Hour, []*told{has}, "staged")
	must(t, m.transport.Publish(t.Context(), msg(debian, "e.1")))
	allDone(m)
	kept := &lockedMarks{marks: marks{"ssh/m1/debian": "e.1"}}
	c := ssh.DefaultMasterConfig()
	c.User, c.StageWait, c.KnownHosts = lacks.sshd.User, config.Duration{Duration: time.Hour}, config.Path(lacks.sshd.KnownHosts)
	for i, r := range []*told{has, lacks} {
		c.Mirrors = append(c.Mirrors, ssh.MirrorAddress{Name: fmt.Sprint("m", i+1), Address: fmt.Sprint("127.0.0.1:", r.sshd.Port), Keys: []config.Path{config.Path(r.sshd.KeyFile)},
			Speaks: "ftpsync", Archives: []string{"debian"}, Push: "staged"})
	}
	second := start(t, reports, func(e transports.Env) (*ssh.Master, error) {
		e.Bookmarks, e.Backlog = kept, backlog("e.1.head.1700000000")
		return ssh.NewMaster(*c, e)
	})
	wasAsked(t, second, lacks, stage2, 1)
	allDone(second)
	if got := has.asked(); !slices.Equal(got, []string{stage1, stage2}) {
		t.Errorf("the mirror that has it is asked %q", got)
	}
}
