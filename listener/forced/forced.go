// Package forced is what `mirrorbus receive` does: the command that sshd runs for the key of a master (`command=` in authorized_keys). It connects what the
// master sends with the socket on which the agent waits for it, and decides nothing: the agent verifies.
//
// What it was asked for comes in SSH_ORIGINAL_COMMAND. That is text from the network: it is matched against a closed grammar, and no part of it
// reaches a shell, a file name or an option.
package forced

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A Verb is what a command asks for.
type Verb string

// The verbs.
const (
	Push  Verb = "push"  // a master that stays connected: the protocol of transports/ssh
	Lines Verb = "lines" // announcements on standard input, or one as the command itself
	Have  Verb = "have"  // where a module stands
	Sync  Verb = "sync"  // something has changed, as runmirrors tells Debian's mirrors
)

// An Order is a command that was understood.
type Order struct {
	Verb   Verb
	Module event.Module // Have
	Sync   Told         // Sync
	Body   []byte       // Lines: what is handed over; nil: it is still to be read from standard input
}

// maxCommand bounds a command: no announcement is longer.
const maxCommand = event.MaxLine

// Parse reads a command. The error says what is understood.
func Parse(command string) (Order, error) {
	words := strings.Fields(command)
	switch {
	case strings.ContainsFunc(command, unicode.IsControl):
		return Order{}, fault.With(fmt.Errorf("command %.80q holds a control character", command), statusOf(command), grammar)
	case len(command) > maxCommand:
		return Order{}, fault.With(fmt.Errorf("a command of %d bytes, at most %d", len(command), maxCommand), statusOf(command), grammar)
	case len(words) == 0:
		return Order{Verb: Lines}, nil
	case command == "push v1":
		return Order{Verb: Push}, nil
	case words[0] == "have" && len(words) == 2:
		m, err := event.ParseModule(words[1])
		return Order{Verb: Have, Module: m}, fault.With(err, fault.Usage, grammar)
	case strings.HasPrefix(words[0], syncWord):
		told, err := parseSync(command)
		return Order{Verb: Sync, Sync: told}, err
	case strings.HasPrefix(command, event.Magic+" "):
		return Order{Verb: Lines, Body: []byte(command)}, nil
	}
	return Order{}, fault.With(fmt.Errorf("command %.80q is not known", command), fault.Usage, grammar)
}

// statusOf is the exit status of a command that cannot be read.
func statusOf(command string) int {
	if strings.HasPrefix(strings.TrimSpace(command), syncWord) {
		return NotDone
	}
	return fault.Usage
}

const grammar = `ask for nothing, with signed lines on standard input; or for one signed line, "have MODULE", "push v1", or "sync:archive:NAME sync:all"`

// A Door is one call of `mirrorbus receive`.
type Door struct {
	Socket string // of the agent
	From   string // where the call comes from, for the agent's log
	In     io.Reader
	Out    io.Writer
	Wait   time.Duration // stay for so long at most until what was handed over is applied or has failed; 0: do not wait

	// Patience is how long nothing may come while standard input is read; ten times as long at most for all of it. 0: a minute.
	Patience time.Duration

	Accepted func() // if not nil, called when all that was handed over has been accepted or refused
}

// ErrNobody is in the error of Open when no agent answers, or one that ends: nothing was accepted.
var ErrNobody = errors.New("the agent does not answer")

func nobody(err error) error {
	return fault.With(fmt.Errorf("%w: %w", ErrNobody, err), fault.TryAgain, "does `mirrorbus agent` run, with [transport.ssh]?")
}

// Read reads what an order hands over from standard input, if it is there: so that it can be carried out more than once.
func (d Door) Read(o *Order) error {
	if o.Verb != Lines || o.Body != nil {
		return nil
	}
	body, err := readAll(io.LimitReader(d.In, maxInput+1), cmp.Or(d.Patience, time.Minute))
	if err != nil {
		return fmt.Errorf("read announcements: %w", err)
	}
	if len(body) > maxInput {
		return fault.With(fmt.Errorf("more than %d bytes of announcements", maxInput), fault.Usage, "announce fewer paths at a time, or let the mirror fetch them")
	}
	o.Body = body
	return nil
}

// Knock is Open at an agent that is just about to listen.
func (d Door) Knock(ctx context.Context, o Order) error {
	late := time.After(knocking)
	for {
		err := d.Open(ctx, o)
		if !errors.Is(err, ErrNobody) {
			return err
		}
		select {
		case <-time.After(knocking / 1000):
		case <-late:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

const knocking = 10 * time.Second

// Open carries out an order. With Lines its success means that every line is stored, and nothing else.
func (d Door) Open(ctx context.Context, o Order) error {
	if err := d.Read(&o); err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.Socket)
	if err != nil {
		return nobody(err)
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // everything that still reads or writes says so
		close(closed)
	})
	defer func() {
		if !stop() {
			<-closed
		}
		conn.Close() //nolint:errcheck // what was to be said is said
	}()
	if err := ssh.Greet(conn, d.From); err != nil {
		return nobody(err)
	}
	if o.Verb == Push {
		return d.pipe(conn.(*net.UnixConn))
	}
	s := &session{Door: d, conn: conn, in: wire.Lines(conn)}
	if err := s.begin(); err != nil {
		return nobody(err)
	}
	if o.Verb == Have {
		return s.have(o.Module)
	}
	return s.lines(ctx, o.Body)
}

// pipe copies both ways until either side ends.
func (d Door) pipe(conn *net.UnixConn) error {
	up := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, d.In)
		up <- errors.Join(err, conn.CloseWrite())
	}()
	_, err := io.Copy(d.Out, conn)
	return err
}
