package transporttest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
)

// world is one server, the processes on it and all that was seen of them, for the length of one check.
type world struct {
	h   Harness
	bus *Bus
	log testenv.Buffer

	mu     sync.Mutex
	errs   []error // every error that a transport returned
	broken []error // rules that hold at all times and did not
	peers  []*peer
	missed []transports.Message // what the publishers' backlog holds; the position after the nth is n
}

// in makes a check of a body that needs a world. When the body has ended it also looks at the rules that hold at all times.
func in(body func(context.Context, *world) error) func(context.Context, Harness) error {
	return func(ctx context.Context, h Harness) error {
		w := &world{h: h}
		ctx, cancel := context.WithTimeoutCause(ctx, h.bound(), fmt.Errorf("gave up after %v", h.bound()))
		defer cancel()
		log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		bus, err := h.Start(ctx, transports.Env{Log: log, Backlog: w.backlog})
		if err != nil {
			return fmt.Errorf("start the server: %w", err)
		}
		w.bus = bus
		return errors.Join(body(ctx, w), w.close())
	}
}

// close ends all that runs and returns what was wrong with it. It has a bound of its own as the check may have used up the first.
func (w *world) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), w.h.bound(), fmt.Errorf("gave up after %v", w.h.bound()))
	defer cancel()
	var errs []error
	for _, p := range slices.Backward(w.peers) { // a master that serves came first and must leave last
		if p.done != nil {
			errs = append(errs, p.leave(ctx))
		}
	}
	if w.bus.Close != nil {
		errs = append(errs, w.bus.Close())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	errs = append(errs, w.broken...)
	return errors.Join(append(errs, w.leaks()...)...)
}

// leaks looks for secrets.
func (w *world) leaks() (found []error) {
	for i, secret := range w.bus.Secrets {
		for _, err := range w.errs {
			if strings.Contains(err.Error(), secret) {
				found = append(found, fmt.Errorf("secret %d of the harness is in an error", i))
			}
		}
		if strings.Contains(w.log.String(), secret) {
			found = append(found, fmt.Errorf("secret %d of the harness is in the log", i))
		}
	}
	return found
}

// breaks records that a rule was broken that holds at all times.
func (w *world) breaks(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = append(w.broken, fmt.Errorf(format, args...))
}

func (w *world) saw(err error) error {
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.errs = append(w.errs, err)
	}
	return err
}

// polled tells whether the mirrors of the harness only look, and report nothing.
func (w *world) polled() bool { return w.h.Driver.Capabilities(transports.Mirror).Polled }

// open makes a process on the bus.
func (w *world) open(role transports.Role, name string) (*peer, error) {
	t, err := w.bus.Open(role, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, w.saw(err))
	}
	p := &peer{watched: watched{t, w, name}, changed: make(chan struct{})}
	w.peers = append(w.peers, p)
	return p, nil
}

// join makes a process and runs it until it is connected.
func (w *world) join(ctx context.Context, role transports.Role, name string, topics ...transports.Topic) (*peer, error) {
	p, err := w.open(role, name)
	if err != nil {
		return nil, err
	}
	return p, p.connect(ctx, topics...)
}

// pair joins a master and a mirror on the module fedora.
func (w *world) pair(ctx context.Context) (master, mirror *peer, err error) {
	if master, err = w.join(ctx, transports.Master, "master", report("fedora")); err != nil {
		return nil, nil, err
	}
	mirror, err = w.join(ctx, transports.Mirror, "mirror", announce("fedora"))
	return master, mirror, err
}

// backlog is Env.Backlog: have is the number of messages that the subscriber has.
func (w *world) backlog(_ context.Context, t transports.Topic, have string) iter.Seq2[transports.Message, error] {
	return func(yield func(transports.Message, error) bool) {
		n, err := strconv.Atoi(have)
		if err != nil {
			yield(transports.Message{}, fmt.Errorf("position %q of %s: %w", have, t, err))
			return
		}
		w.mu.Lock()
		missed := w.missed[min(n, len(w.missed)):]
		w.mu.Unlock()
		for _, m := range missed {
			if m.Topic == t && !yield(m, nil) {
				return
			}
		}
	}
}

func announce(module string) transports.Topic {
	return transports.Topic{Kind: transports.Announce, Module: module}
}

func report(module string) transports.Topic {
	return transports.Topic{Kind: transports.Report, Module: module}
}

// message makes a message whose ID follows from its body.
func message(t transports.Topic, body string) transports.Message {
	sum := sha256.Sum256([]byte(t.String() + "\n" + body))
	return transports.Message{Topic: t, ID: fmt.Sprintf("%x", sum[:16]), Body: []byte(body)}
}
