package forced

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// readAll reads to the end, or fails when nothing has come for that long, or too little in ten times that long. What it leaves reading ends with the process:
// nothing else ends a read from a pipe.
func readAll(in io.Reader, patience time.Duration) ([]byte, error) {
	type piece struct {
		bytes []byte
		err   error
	}
	pieces, stop := make(chan piece), make(chan struct{})
	defer close(stop)
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

func slow(n int, after time.Duration) error {
	return fault.With(fmt.Errorf("%w: %d bytes and no end after %v", os.ErrDeadlineExceeded, n, after), fault.TryAgain, "send all of it at once, and close standard input")
}
