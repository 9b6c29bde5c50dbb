package hub

import (
	"context"
	"io"
	"time"

	"golang.org/x/crypto/ssh"
)

// chunk is how many bytes are read or written between two looks at the clock: at 1 kB/s it passes in half a minute.
const chunk = 32 << 10

// A watchdog ends a connection on which nothing moves while something should. SSH channels have no deadlines of their own.
type watchdog struct {
	timer *time.Timer
	limit time.Duration
}

// newWatchdog returns one that calls bark after each wait of limit.
func newWatchdog(limit time.Duration, bark func()) *watchdog {
	w := &watchdog{time.AfterFunc(limit, bark), limit}
	w.timer.Stop()
	return w
}

// watch calls f, and bark if f takes too long. Then bark must make f return.
func (w *watchdog) watch(f func() error) error {
	w.timer.Reset(w.limit)
	defer w.timer.Stop()
	return f()
}

// A watchedWriter watches each chunk that it writes.
type watchedWriter struct {
	w   io.Writer
	dog *watchdog
}

func (w watchedWriter) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		err = w.dog.watch(func() error {
			k, err := w.w.Write(b[n:min(n+chunk, len(b))])
			n += k
			return err
		})
	}
	return n, err
}

// keepAlive asks the other side every interval whether it is there, until ctx is done. It calls silent when there was no answer within another
// interval, and then silent must close conn. check is asked each time; its error goes to silent as well.
func keepAlive(ctx context.Context, conn ssh.Conn, interval time.Duration, check func() error, silent func(error)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := check(); err != nil {
			silent(err)
			return
		}
		dog := time.AfterFunc(interval, func() { silent(errSilent) })
		_, _, err := conn.SendRequest(keepaliveRequest, true, nil)
		dog.Stop()
		if err != nil {
			return // the connection has ended, which others notice too
		}
	}
}
