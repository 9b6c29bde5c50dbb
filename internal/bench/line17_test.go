package bench_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener/pace"
)

// away is line 17: a mirror has missed so many announcements, of one file each, and hears nothing: it looks at its upstream, and is up to date. Beside it
// one full rsync, which is what brings such a mirror up to date today.
func (b *bench) away() error {
	p, err := b.poller("away")
	if err != nil {
		return err
	}
	for _, missed := range b.changed {
		var took, rsyncTook []time.Duration
		var ours, theirs testenv.Traffic
		rounds := 0
		for start := time.Now(); rounds < b.rounds && time.Since(start) < patience; rounds++ {
			if err := errors.Join(p.miss(missed, rounds), p.mayLook()); err != nil {
				return err
			}
			d, t, err := p.poll()
			if err != nil {
				return err
			}
			took, ours = append(took, d), t
			if d, t, err = p.fullRsync(); err != nil {
				return err
			}
			rsyncTook, theirs = append(rsyncTook, d), t
			if err := p.caughtUp(); err != nil {
				return err
			}
		}
		what, against := fmt.Sprintf("%d announcements missed, of %d files: ", missed, b.small), "full rsync"
		b.add(row{line: "17", what: what + "time to be up to date", ours: median(took), against: against, theirs: median(rsyncTook), rounds: rounds})
		b.add(row{line: "17", what: what + "bytes from the master", ours: float64(ours.Down), against: against, theirs: float64(theirs.Down), unit: byteCount, rounds: rounds})
		b.add(row{line: "17", what: what + "bytes to the master", ours: float64(ours.Up), against: against, theirs: float64(theirs.Up), unit: byteCount, rounds: rounds})
	}
	return nil
}

// mayLook waits until the mirror may look as often as it needs to: it may do so ten times at once and then every ten seconds.
func (p *poller) mayLook() error {
	select {
	case <-time.After(2 * pace.DefaultBudgets()[pace.WorkLook].Every):
		return nil
	case <-p.b.ctx.Done():
		return context.Cause(p.b.ctx)
	}
}

// miss announces changes of single files, one after the other.
func (p *poller) miss(n, round int) error {
	start := time.Now()
	for i := range n {
		one := []string{name((i*7 + round) % p.b.small)}
		if err := p.rewrite(one); err != nil {
			return err
		}
		if _, err := p.publish(false, written(one)); err != nil {
			return err
		}
	}
	say("  %d announcements in %s", n, time.Since(start).Round(time.Millisecond))
	return nil
}

// caughtUp makes sure that rsync finds nothing to do on the mirror either.
func (p *poller) caughtUp() error {
	out, err := p.b.output("", "rsync", "-anO", "--delete", "--out-format=%i %n", "--exclude=/.mirrorbus/", p.url(), p.mirrors[0].tree+"/")
	if err == nil && out != "" {
		err = fmt.Errorf("the mirror is not up to date: %.300s", out)
	}
	return err
}
