package ssh

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Examine implements transports.Examiner: it calls every mirror and asks it what it subscribes to.
func (m *Master) Examine(ctx context.Context) []transports.Finding {
	found := make([]transports.Finding, len(m.conf.Mirrors))
	var calls sync.WaitGroup
	for i, at := range m.conf.Mirrors {
		calls.Go(func() {
			c := &caller{m: m, at: m.filled(at)}
			what := fmt.Sprintf("%s at %s", at.Name, at.Address)
			if at.Speaks == speaksFtpsync {
				found[i] = c.knock(ctx, what)
				return
			}
			n, took, err := c.ask(ctx)
			switch {
			case err != nil:
				found[i] = transports.Bad(what, "its text says what to change; a mirror that is away for a while gets later what it missed", err)
			default:
				found[i] = transports.Good(fmt.Sprintf("%s lets us in after %s, and takes %d modules", what, took.Round(time.Millisecond), n))
			}
		})
	}
	calls.Wait()
	return found
}

// knock tries whether a mirror that runs ftpsync lets the master in. Whatever it were asked would make it look through everything.
func (c *caller) knock(ctx context.Context, what string) transports.Finding {
	l, err := c.connect(ctx)
	if err != nil {
		return transports.Bad(what, "its text says what to change; a mirror that is away for a while is told later", err)
	}
	l.Close()
	return transports.Good(what + " lets us in; it runs ftpsync, and reports nothing")
}

// ask connects to the mirror and hears how many modules it subscribes to.
func (c *caller) ask(ctx context.Context) (topics int, took time.Duration, err error) {
	if err := c.m.dialling.Acquire(ctx, 1); err != nil {
		return 0, 0, context.Cause(ctx)
	}
	defer c.m.dialling.Release(1)
	began := time.Now()
	l, err := c.dial(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, l.HangUp)
	defer stop()
	far, err := start(l, pushCommand)
	if err != nil {
		return 0, 0, err
	}
	wants, err := far.wants()
	if err != nil {
		return 0, 0, far.why(err)
	}
	return len(wants), time.Since(began), nil
}

// Examine implements transports.Examiner: it tries whether the agent listens where `mirrorbus receive` looks for it.
func (m *Mirror) Examine(ctx context.Context) []transports.Finding {
	what := "socket " + string(m.conf.Socket)
	c, err := new(net.Dialer).DialContext(ctx, "unix", string(m.conf.Socket))
	if err != nil {
		return []transports.Finding{transports.Warn(what, "see that the agent runs; with `receive --alone` it need not", err)}
	}
	if err := c.Close(); err != nil {
		return []transports.Finding{transports.Warn(what, "try again", err)}
	}
	return []transports.Finding{transports.Good(what + ": the agent listens")}
}
