package forced

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// beat is how often the agent is told that the session is alive.
const beat = 20 * time.Second

// maxInput is the most bytes of standard input: the largest announcement with its path set.
const maxInput = wire.MaxBody

// A session speaks the protocol of transports/ssh itself, for those who do not.
type session struct {
	Door
	conn  net.Conn
	in    *bufio.Reader
	wants []wire.Want
}

// begin hears what the agent wants.
func (s *session) begin() error {
	line, err := wire.ReadLongLine(s.in)
	if err != nil {
		return err
	}
	words := strings.Split(line, " ")
	if len(words) < 2 || words[0] != "subscribe" || words[1] != "v1" {
		return fmt.Errorf("%w: its first line is %.80q", wire.ErrFrame, line)
	}
	s.wants, err = wire.ParseWants(words[2:])
	return err
}

// have prints where a module stands, as EPOCH:SERIAL, or a line with nothing if it has nothing yet.
func (s *session) have(m event.Module) error {
	for _, w := range s.wants {
		if w.Topic == announced(m) {
			_, err := fmt.Fprintln(s.Out, w.Have)
			return err
		}
	}
	return fault.With(fmt.Errorf("module %s is not mirrored here", m), fault.Failed, "")
}

func announced(m event.Module) transports.Topic {
	return transports.Topic{Kind: transports.Announce, Module: string(m)}
}

// lines hands over announcements: one with its path set, or any number of lines. It prints what becomes of each.
func (s *session) lines(ctx context.Context, body []byte) error {
	all, err := split(body)
	if err != nil {
		return fault.With(err, fault.Usage, "send signed lines, as the files below .mirrorbus/journal begin with")
	}
	if _, err := fmt.Fprintf(s.conn, "ready %d\n", beat.Milliseconds()); err != nil {
		return nobody(err)
	}
	stop := s.alive(ctx)
	defer stop()
	for _, m := range all {
		if _, err := s.conn.Write(wire.Encode(m)); err != nil {
			return nobody(err)
		}
	}
	return s.results(all)
}

// alive writes a line to the agent now and then.
func (s *session) alive(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := io.WriteString(s.conn, "beat\n"); err != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// split makes messages of what was given: lines, or one line with its path set behind it.
func split(body []byte) (all []transports.Message, err error) {
	if _, set, err := envelope.Decode(body); err == nil && set != nil && !strings.HasPrefix(string(set), event.Magic+" ") {
		m, err := message(body)
		return []transports.Message{m}, err
	}
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			continue
		}
		m, err := message([]byte(line))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, errors.New("no announcement was sent")
	}
	return all, nil
}

// message is what carries an announcement. Whether it is to be believed is for the agent to say.
func message(body []byte) (transports.Message, error) {
	line, _, err := envelope.Decode(body)
	if err != nil {
		return transports.Message{}, err
	}
	said, err := event.Read(line)
	if err != nil {
		return transports.Message{}, err
	}
	return transports.Message{Topic: announced(said.Module()), ID: event.Sum(body).String(), Body: body}, nil
}

// A ledger is what is known of the announcements that were handed over.
type ledger struct {
	waiting map[string]event.Sealed       // not answered yet, by message
	open    map[event.Module]event.Serial // accepted, and not done with
	applied map[event.Module]event.Serial // by the mirror's reports
	refused error
}

// results prints what becomes of each message until all are accepted, or with Wait until they are done with. The error tells of those that were not taken.
func (s *session) results(all []transports.Message) error {
	l := ledger{map[string]event.Sealed{}, map[event.Module]event.Serial{}, map[event.Module]event.Serial{}, nil}
	for _, m := range all {
		line, _, err := envelope.Decode(m.Body)
		if err != nil {
			return err
		}
		if l.waiting[m.ID], err = event.Read(line); err != nil {
			return err
		}
	}
	for told := false; len(l.waiting) > 0 || s.Wait > 0 && len(l.open) > 0; {
		if len(l.waiting) == 0 && !told {
			told = true
			s.accepted()
			defer time.AfterFunc(s.Wait, func() { s.conn.Close() }).Stop() //nolint:errcheck // reading says so
		}
		line, err := wire.ReadLine(s.in)
		switch {
		case err != nil && len(l.waiting) > 0:
			return nobody(err) // what was accepted and will be handed over once more is known by then
		case err != nil: // all is accepted, and that is what counts
			return l.refused
		}
		switch word, _, _ := strings.Cut(line, " "); word {
		case "ok", "err":
			err = s.answered(&l, line)
		default:
			err = s.reported(&l, line)
		}
		if err != nil {
			return err
		}
	}
	return l.refused
}

func (s *session) accepted() {
	if s.Accepted != nil {
		s.Accepted()
	}
}

// answered takes the answer to a message.
func (s *session) answered(l *ledger, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	id, text, _ := strings.Cut(rest, " ")
	sealed, asked := l.waiting[id]
	if !asked {
		return fmt.Errorf("agent: %w: %.80q answers nothing", wire.ErrFrame, line)
	}
	delete(l.waiting, id)
	if word == "err" {
		l.refused = errors.Join(l.refused, fmt.Errorf("module %s: %s", sealed.Module(), text))
		return nil
	}
	m, serial := sealed.Module(), event.Serial(0)
	if a := sealed.Announcement; a != nil {
		serial = a.Serial
	}
	if serial > l.applied[m] { // else a report has come before the answer
		l.open[m] = max(l.open[m], serial)
	}
	_, err := fmt.Fprintf(s.Out, "received %s %d\n", m, serial)
	return err
}

// reported prints a report of the mirror, and answers that it was taken.
func (s *session) reported(l *ledger, header string) error {
	m, size, err := wire.ParseHeader(header)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	dog := wire.NewWatchdog(time.Minute, func() { s.conn.Close() }) //nolint:errcheck // reading says so
	if m.Body, err = wire.ReadBody(s.in, size, dog); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	line, _, err := envelope.Decode(m.Body)
	if err != nil {
		return err
	}
	said, err := event.Read(line)
	if err != nil || said.Report == nil {
		return errors.Join(fmt.Errorf("agent: %.80q is no report", line), err)
	}
	r := said.Report
	l.applied[r.Module] = max(l.applied[r.Module], r.Applied)
	if until, mine := l.open[r.Module]; mine {
		if r.Outcome != event.Have {
			if _, err := fmt.Fprintf(s.Out, "%s %s %d %s\n", r.Outcome, r.Module, r.Serial, line); err != nil {
				return err
			}
		}
		if r.Applied >= until || (r.Outcome == event.Failed || r.Outcome == event.Blocked) && r.Serial >= until {
			delete(l.open, r.Module)
		}
	}
	_, err = io.WriteString(s.conn, wire.Answer(m.ID, nil))
	return err
}
