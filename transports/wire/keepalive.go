package wire

import (
	"context"
	"errors"
	"time"

	"golang.org/x/crypto/ssh"
)

// keepaliveRequest is what OpenSSH asks, too; any answer will do.
const keepaliveRequest = "keepalive@openssh.com"

// ErrSilent is what KeepAlive reports when there was no answer.
var ErrSilent = errors.New("no answer to a keepalive")

// KeepAlive asks the other side every interval whether it is there, until ctx is done. It calls silent when there was no answer within another
// interval, and then silent must close conn. check is asked each time; its error goes to silent as well.
func KeepAlive(ctx context.Context, conn ssh.Conn, interval time.Duration, check func() error, silent func(error)) {
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
		dog := time.AfterFunc(interval, func() { silent(ErrSilent) })
		_, _, err := conn.SendRequest(keepaliveRequest, true, nil)
		dog.Stop()
		if err != nil {
			return // the connection has ended, which others notice too
		}
	}
}
