package transporttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/mem"
)

func faults() []fault {
	return slices.Concat(bodyFaults(), deliveryFaults(), runFaults(), returnFaults(), otherFaults())
}

func bodyFaults() []fault {
	const check, says = "body unchanged", "never sent"
	return []fault{
		{name: "cuts the last byte", check: check, says: "waiting for the body", open: body(func(b []byte) []byte { return b[:len(b)-1] })},
		{name: "flips a bit of byte 200", check: check, says: "lost or changed", open: body(func(b []byte) []byte {
			if len(b) > 200 {
				b = bytes.Clone(b)
				b[200] ^= 1
			}
			return b
		})},
		{name: "trims blanks at the end", check: check, says: says, open: body(func(b []byte) []byte { return bytes.TrimRight(b, " \t\r\n") })},
		{name: "turns line ends into its own", check: check, says: says, open: body(func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
		})},
		{name: "mends invalid UTF-8", check: check, says: says, open: body(func(b []byte) []byte { return bytes.ToValidUTF8(b, []byte("?")) })},
		{name: "ends at NUL", check: check, says: says, open: body(func(b []byte) []byte {
			head, _, _ := bytes.Cut(b, []byte{0})
			return head
		})},
		{
			name: "drops the largest", check: "largest body arrives and one byte more is refused", says: "waiting for 1 messages",
			options: func(o *mem.Options) { o.Capabilities.MaxBody = 1001 }, // so that not the bus refuses
			open: publishing(func(_ *site, next publishFunc) publishFunc {
				return func(ctx context.Context, m transports.Message) error {
					switch len(m.Body) {
					case 1001:
						return transports.ErrTooLarge
					case 1000:
						return nil
					}
					return next(ctx, m)
				}
			}),
		},
		{
			name: "accepts too large", check: "largest body arrives and one byte more is refused", says: "want ErrTooLarge",
			open: publishing(func(_ *site, next publishFunc) publishFunc {
				return func(ctx context.Context, m transports.Message) error {
					m.Body = m.Body[:min(len(m.Body), 1000)]
					return next(ctx, m)
				}
			}),
		},
	}
}

func deliveryFaults() []fault {
	return []fault{
		{name: "loses every third", check: "taken once while healthy", says: "waiting for 100 messages", open: receiving(loseEveryThird)},
		{name: "delivers the tenth twice", check: "taken once while healthy", says: "repeated or never sent", open: receiving(repeatTenth)},
		{name: "swaps neighbours", check: "order kept", says: "is not the one sent as that", open: publishing(swapNeighbours)},
		{name: "mixes topics with one beginning", check: "topics apart", says: "repeated or never sent", open: publishing(mixTopics)},
		{name: "mixes kinds", check: "topics apart", says: "repeated or never sent", open: publishing(mixKinds)},
		{name: "skips one subscriber", check: "every subscriber gets it", says: "mirror-2: waiting for", open: receiving(skipMirror2)},
		{name: "says that all are the same", check: "reports reach the master", says: `both From "bus"`, open: receiving(sameFrom)},
		{
			name: "takes a report that nobody gets", check: "nothing goes back where others only look", says: "want a permanent one",
			driver: func(d *transports.Driver) {
				d.Capabilities = func(transports.Role) transports.Capabilities {
					return transports.Capabilities{MaxBody: 1000, Polled: true}
				}
			},
			open: func(s *site, name string) transports.Transport { return s.bus.Connect(name) },
		},
		{
			name: "one master takes a report from the others", check: "reports reach every master", says: "waiting for",
			options: func(o *mem.Options) { o.Capabilities.Broadcast = false },
			open:    func(s *site, name string) transports.Transport { return s.bus.Connect(name) },
		},
		{name: "loses what is published at the same time", check: "concurrent publish", says: "mirror: waiting for 100 messages", open: publishing(loseOneOfTwo)},
		{name: "one slow receiver holds all", check: "slow receiver does not hold others", says: "quick: waiting for", open: receiving(oneAtATime)},
		{name: "receives in many goroutines", check: "slow receiver does not hold others", says: "while an earlier call was under way", open: running(manyReceives)},
	}
}

func loseEveryThird(_ *site, _ string, next receiveFunc) receiveFunc {
	n := 0
	return func(ctx context.Context, m transports.Message) error {
		if n++; n%3 == 0 {
			return nil
		}
		return next(ctx, m)
	}
}

func repeatTenth(_ *site, _ string, next receiveFunc) receiveFunc {
	n := 0
	return func(ctx context.Context, m transports.Message) error {
		if n++; n == 10 {
			if err := next(ctx, m); err != nil {
				return err
			}
		}
		return next(ctx, m)
	}
}

func swapNeighbours(s *site, next publishFunc) publishFunc {
	return func(ctx context.Context, m transports.Message) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held == nil {
			s.held = &m
			return nil
		}
		first := *s.held
		s.held = nil
		return errors.Join(next(ctx, m), next(ctx, first))
	}
}

func mixTopics(_ *site, next publishFunc) publishFunc {
	return func(ctx context.Context, m transports.Message) error {
		if rest, found := strings.CutPrefix(m.Topic.Module, "fedora."); found {
			copied := m
			copied.Topic.Module = strings.TrimSuffix(m.Topic.Module, "."+rest)
			return errors.Join(next(ctx, copied), next(ctx, m))
		}
		return next(ctx, m)
	}
}

func mixKinds(_ *site, next publishFunc) publishFunc {
	return func(ctx context.Context, m transports.Message) error {
		if m.Topic.Kind == transports.Report {
			copied := m
			copied.Topic.Kind = transports.Announce
			return errors.Join(next(ctx, copied), next(ctx, m))
		}
		return next(ctx, m)
	}
}

func skipMirror2(_ *site, name string, next receiveFunc) receiveFunc {
	return func(ctx context.Context, m transports.Message) error {
		if name == "mirror-2" {
			return nil
		}
		return next(ctx, m)
	}
}

func sameFrom(_ *site, _ string, next receiveFunc) receiveFunc {
	return func(ctx context.Context, m transports.Message) error {
		m.From = "bus"
		return next(ctx, m)
	}
}

// loseOneOfTwo waits for two to publish announcements at the same time, and loses one.
func loseOneOfTwo(s *site, next publishFunc) publishFunc {
	return func(ctx context.Context, m transports.Message) error {
		if m.Topic.Kind != transports.Announce {
			return next(ctx, m)
		}
		select {
		case <-s.met:
		case s.meet <- struct{}{}:
			return nil
		case <-s.meet:
			s.once()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return next(ctx, m)
	}
}

func oneAtATime(s *site, _ string, next receiveFunc) receiveFunc {
	return func(ctx context.Context, m transports.Message) error {
		select {
		case s.slow <- struct{}{}:
			defer func() { <-s.slow }()
			return next(ctx, m)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func manyReceives(s *site, _ string, next runFunc) runFunc {
	return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
		return next(ctx, subs, hookedReceiver{r.Connected, func(ctx context.Context, m transports.Message) error {
			s.wait.Go(func() {
				if err := r.Receive(ctx, m); err != nil {
					s.env.Log.Debug("refused", "error", err)
				}
			})
			return nil
		}})
	}
}

func otherFaults() []fault {
	const secrets = "no secret in errors or log"
	return []fault{
		{name: "puts the secret into an error", check: secrets, says: "secret 0 of the harness is in an error", open: running(
			func(_ *site, _ string, next runFunc) runFunc {
				return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
					return fmt.Errorf("amqp://user:%s@localhost: %w", secret, next(ctx, subs, r))
				}
			})},
		{name: "puts the secret into the log", check: secrets, says: "secret 0 of the harness is in the log", open: running(
			func(s *site, _ string, next runFunc) runFunc {
				return func(ctx context.Context, subs []transports.Subscription, r transports.Receiver) error {
					s.env.Log.Debug("connecting", "url", "amqp://user:"+secret+"@localhost")
					return next(ctx, subs, r)
				}
			})},
		{
			name: "accepts any key", check: "configuration refuses an unknown key", says: "no-such-key was accepted",
			driver: func(d *transports.Driver) {
				d.Mirror = transports.SideOf(func() *map[string]any { return &map[string]any{} }, func(map[string]any, transports.Env) (transports.Transport, error) {
					return nil, errors.New("only its configuration is looked at")
				})
			},
		},
	}
}
