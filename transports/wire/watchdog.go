package wire

import (
	"io"
	"time"
)

// chunk is how many bytes are read or written between two looks at the clock: at 1 kB/s it passes in half a minute.
const chunk = 32 << 10

// A Watchdog ends a connection on which nothing moves while something should. SSH channels have no deadlines of their own.
type Watchdog struct {
	timer *time.Timer
	limit time.Duration
}

// NewWatchdog returns one that calls bark after each wait of limit.
func NewWatchdog(limit time.Duration, bark func()) *Watchdog {
	w := &Watchdog{time.AfterFunc(limit, bark), limit}
	w.timer.Stop()
	return w
}

// Watch calls f, and bark if f takes too long. Then bark must make f return.
func (w *Watchdog) Watch(f func() error) error {
	w.timer.Reset(w.limit)
	defer w.timer.Stop()
	return f()
}

// A Writer watches each chunk that it writes.
type Writer struct {
	W   io.Writer
	Dog *Watchdog
}

// Write implements io.Writer.
func (w Writer) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		err = w.Dog.Watch(func() error {
			k, err := w.W.Write(b[n:min(n+chunk, len(b))])
			n += k
			return err
		})
	}
	return n, err
}
