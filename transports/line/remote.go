package line

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/transports/wire"
)

// A Remote is a program that runs at the other end.
type Remote struct {
	Lines *bufio.Reader  // its standard output
	Input io.WriteCloser // its standard input
	Said  *wire.Capped   // its standard error

	line *Line
	wait func() error // for its end; the error says how that was
}

// Start asks the server for a command. It has its own mind about what to run.
func (l *Line) Start(command string) (*Remote, error) {
	session, err := l.Client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("%s: session: %w", l.what, err)
	}
	r := &Remote{Said: &wire.Capped{}, line: l, wait: sync.OnceValue(session.Wait)}
	session.Stderr = r.Said
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: session: %w", l.what, err)
	}
	if r.Input, err = session.StdinPipe(); err != nil {
		return nil, fmt.Errorf("%s: session: %w", l.what, err)
	}
	r.Lines = wire.Lines(out)
	if err := session.Start(command); err != nil {
		return nil, fmt.Errorf("%s: start %.20q: %w", l.what, command, err)
	}
	l.open = append(l.open, r)
	return r, nil
}

// farewell is how long the end of a program may take to be told after that of its output.
const farewell = 2 * time.Second

// Ended tells whether err, met while its output was read, says that the program has ended, and how it did: that is told right after its output ends. how
// is nil if nothing was told, as when the connection broke.
func (r *Remote) Ended(err error) (how *ssh.ExitError, yes bool) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, false
	}
	late := time.AfterFunc(farewell, r.line.HangUp)
	err = r.wait()
	late.Stop()
	errors.As(err, &how)
	return how, true
}
