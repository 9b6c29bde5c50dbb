package ssh

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// The ways to push a mirror, in the words of runmirrors.
const (
	pushAll    = "all"    // everything at once; "" is this
	pushStaged = "staged" // content first; the rest when the other mirrors have theirs
	pushMhop   = "mhop"   // likewise, and the mirror does so with those below it before it says that it has its content
)

// The stages, likewise.
const (
	everything  = "all"
	firstStage  = "stage1"
	secondStage = "stage2"
)

// together are the mirrors of a module that are pushed in stages, so that all of them show a change at about the same time: each brings content, for as
// long as that takes it, and when all have it each brings the indexes. One that fails is waited for by nobody, as it may be away for days: it comes when it
// can. One that is at work is waited for, but not for ever.
type together struct {
	mu        sync.Mutex
	announced []string // the last positions, the newest last
	forgotten uint64   // how many there were before
	members   map[*pusher]member
	changed   chan struct{} // closed at the next change
}

// A member is one of the mirrors.
type member struct {
	has  uint64 // it has the content of everything up to this number
	lame bool   // it has failed since
}

func newTogether() *together {
	return &together{members: map[*pusher]member{}, changed: make(chan struct{})}
}

// maxAnnounced is how many positions are told apart from new ones.
const maxAnnounced = 64

// numbered is the number of a position: the later it was announced first, the higher.
func (g *together) numbered(position string) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.announced, position)
	if i < 0 {
		if len(g.announced) == maxAnnounced {
			g.announced = g.announced[1:]
			g.forgotten++
		}
		g.announced = append(g.announced, position)
		i = len(g.announced) - 1
	}
	return g.forgotten + uint64(i) + 1
}

// join makes a mirror a member.
func (g *together) join(p *pusher) { g.set(p, member{}) }

// arrived notes that a mirror has the content up to a number.
func (g *together) arrived(p *pusher, number uint64) { g.set(p, member{has: number}) }

// failed notes that a mirror could not do what it was asked for.
func (g *together) failed(p *pusher) {
	g.mu.Lock()
	m := g.members[p]
	g.mu.Unlock()
	m.lame = true
	g.set(p, m)
}

func (g *together) set(p *pusher, m member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members[p] = m
	close(g.changed)
	g.changed = make(chan struct{})
}

// behind names the mirrors that are at work on content up to a number. changed is closed when that may be different.
func (g *together) behind(number uint64) (names []string, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p, m := range g.members {
		if m.has < number && !m.lame {
			names = append(names, p.at.Name)
		}
	}
	slices.Sort(names)
	return names, g.changed
}

// await waits until nobody is at work on content up to a number any more, or for limit. It returns those who still are.
func (g *together) await(ctx context.Context, number uint64, limit time.Duration) (late []string, err error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		late, changed := g.behind(number)
		if len(late) == 0 {
			return nil, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return late, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// staged brings what was announced up to a number in two stages.
func (p *pusher) staged(ctx context.Context, number uint64) error {
	if err := p.push(ctx, firstStage); err != nil {
		return err
	}
	p.together.arrived(p, number)
	p.does("has the content, and waits for the others")
	defer p.does("")
	late, err := p.together.await(ctx, number, p.m.conf.StageWait.Duration)
	if err != nil {
		return err
	}
	if len(late) > 0 {
		p.m.log.Warn("a mirror is to show what others do not have yet", "mirror", p.at.Name, "archive", p.name, "without", strings.Join(late, " "), "waited", p.m.conf.StageWait.Duration)
	}
	p.does("")
	return p.push(ctx, secondStage)
}

// does notes for status what the mirror is at, where that is not simply its work.
func (p *pusher) does(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doing = what
}
