package transporttest_test

import (
	"context"
	"errors"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
)

func runFaults() []fault {
	const once = "connected once before receive"
	return []fault{
		{name: "never says connected", check: once, says: "waiting for Connected", open: connecting(func(transports.Receiver) {})},
		{name: "says connected twice", check: once, says: "Connected was called 2 times", open: connecting(func(r transports.Receiver) {
			r.Connected()
			r.Connected()
		})},
		{name: "receives before connected", check: once, says: "Receive was called before Connected", open: connecting(func(r transports.Receiver) {
			early := transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: "fedora"}, Body: []byte("early")}
			if err := r.Receive(context.Background(), early); err == nil {
				r.Connected()
			}
		})},
		{name: "publishes into the void", check: "publish without a connection", says: "want ErrNotConnected", open: publishing(
			func(_ *site, next publishFunc) publishFunc {
				return func(ctx context.Context, m transports.Message) error {
					if err := next(ctx, m); !errors.Is(err, transports.ErrNotConnected) {
						return err
					}
					return nil
				}
			})},
		{name: "ignores cancel", check: "cancel ends run", says: "waiting for run to end", open: running(ignoreCancel)},
		{name: "run returns nil", check: "cancel ends run", says: "Run returned nil", open: running(nilError)},
		{name: "hides why it ended", check: "cancel ends run", says: "which is not that cause", open: running(hideCause)},
		{name: "leaves its receiver behind", check: "cancel ends run that waits for its receiver", says: "Run returned while Receive was under way",
			open: running(leaveReceiver)},
		{name: "receiver is not told of the end", check: "cancel ends run that waits for its receiver", says: "waiting for run to end",
			open: receiving(func(s *site, _ string, next receiveFunc) receiveFunc {
				return func(_ context.Context, m transports.Message) error { return next(untilOver(s), m) }
			})},
		{name: "leaks a goroutine", check: "no goroutine left", says: "found unexpected goroutines", open: running(leakGoroutine)},
		{name: "runs once only", check: "runs again", says: "used up", open: running(runOnce)},
	}
}

// untilOver is a context that ends with the test.
func untilOver(s *site) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	s.wait.Go(func() {
		<-s.over
		cancel()
	})
	return ctx
}

func leaveReceiver(s *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		return next(ctx, subs, hookedReceiver{r.Connected, func(_ context.Context, m transports.Message) error {
			s.wait.Go(func() {
				if err := r.Receive(untilOver(s), m); err != nil {
					s.env.Log.Debug("refused", "error", err)
				}
			})
			return nil
		}})
	}
}

func ignoreCancel(_ *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		return next(context.WithoutCancel(ctx), subs, r)
	}
}

func nilError(_ *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		if err := next(ctx, subs, r); ctx.Err() == nil {
			return err
		}
		return nil
	}
}

func hideCause(_ *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		if err := next(ctx, subs, r); ctx.Err() == nil {
			return err
		}
		return transports.ErrClosed
	}
}

func leakGoroutine(s *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		s.wait.Go(func() { <-s.over })
		return next(ctx, subs, r)
	}
}

func runOnce(s *site, name string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		if s.run(name) > 1 {
			return errors.New("used up")
		}
		return next(ctx, subs, r)
	}
}

func returnFaults() []fault {
	const gone = "server gone and back"
	return []fault{
		{name: "swallows a refusal", check: "refusal ends run", says: "waiting for run to end", open: receiving(swallowRefusal)},
		{name: "hides a refusal", check: "refusal ends run", says: "after its receiver had returned", open: running(hideRefusal)},
		{name: "forgets what was refused", check: "refused is redelivered", says: `waiting for the body "refuse this"`, open: receiving(forgetRefused)},
		{name: "forgets what waits", check: "away and back", says: "messages were received",
			options: func(o *mem.Options) { o.Capabilities.Durable = false },
			open:    func(s *site, name string) transports.Transport { return s.bus.Connect(name) }},
		{name: "ignores have", check: "resumes from have", says: "after position 2", open: running(ignoreHave)},
		{name: "asks for have only once", check: "resumes from have", says: "after position 4", open: running(haveOnce)},
		{name: "does not notice that the server has gone", check: gone, says: "waiting for run to end", open: running(deafToEnd)},
		{name: "does not come back", check: gone, says: "waiting for the connection to come back", open: running(stayAway)},
	}
}

func swallowRefusal(_ *site, _ string, next receiveFunc) receiveFunc {
	return func(ctx context.Context, m transports.Message) error {
		if err := next(ctx, m); ctx.Err() != nil {
			return err
		}
		return nil
	}
}

func hideRefusal(_ *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		if err := next(ctx, subs, r); ctx.Err() != nil {
			return err
		}
		return transports.ErrClosed
	}
}

func forgetRefused(s *site, _ string, next receiveFunc) receiveFunc {
	return func(ctx context.Context, m transports.Message) error {
		s.mu.Lock()
		lost := s.lost[string(m.Body)]
		s.mu.Unlock()
		if lost {
			return nil
		}
		err := next(ctx, m)
		s.mu.Lock()
		s.lost[string(m.Body)] = err != nil
		s.mu.Unlock()
		return err
	}
}

func ignoreHave(_ *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		for i := range subs {
			subs[i].Have = nil
		}
		return next(ctx, subs, r)
	}
}

func haveOnce(s *site, name string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		if s.run(name) > 1 {
			for i := range subs {
				subs[i].Have = func() string { return "2" }
			}
		}
		return next(ctx, subs, r)
	}
}

func deafToEnd(_ *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		err := next(ctx, subs, r)
		if !errors.Is(err, mem.ErrDown) {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
}

func stayAway(s *site, name string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		if name == "mirror" && s.run(name) > 1 {
			return transports.ErrClosed
		}
		return next(ctx, subs, r)
	}
}
