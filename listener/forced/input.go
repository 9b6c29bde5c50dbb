package forced

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A piece is what one read has brought.
type piece struct {
	bytes []byte
	err   error
}

// readAll reads to the end, or fails when nothing has come for that long, or too little in ten times that long. What it leaves reading ends with the process:
// nothing else ends a read from a pipe.
func readAll(in io.Reader, patience time.Duration) ([]byte, error) {
	stop := make(chan struct{})
	defer close(stop)
	pieces := read(in, stop)
	late, idle := time.NewTimer(10*patience), time.NewTimer(patience)
	defer late.Stop()
	defer idle.Stop()
	var all []byte
	for {
		select {
		case p := <-pieces:
			all = append(all, p.bytes...)
			if errors.Is(p.err, io.EOF) {
				return all, nil
			}
			if p.err != nil {
				return nil, p.err
			}
			idle.Reset(patience)
		case <-idle.C:
			return nil, slow(len(all), patience)
		case <-late.C:
			return nil, slow(len(all), 10*patience)
		}
	}
}

// read reads until an error, the end among them, or until somebody stops it between two reads.
func read(in io.Reader, stop <-chan struct{}) <-chan piece {
	pieces := make(chan piece)
	go func() {
		for {
			buf := make([]byte, 32<<10)
			n, err := in.Read(buf)
			select {
			case pieces <- piece{buf[:n], err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return pieces
}

func slow(n int, after time.Duration) error {
	return fault.With(fmt.Errorf("%w: %d bytes and no end after %v", os.ErrDeadlineExceeded, n, after), fault.TryAgain, "send all of it at once, and close standard input")
}
