// Package control is how commands talk to the daemon that has the database open: HTTP and JSON over a UNIX socket, so that
// `curl --unix-socket` works too. Who may open the socket may do everything it offers; its mode is 0660.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// maxSocketPath is what fits sockaddr_un.
const maxSocketPath = 107

// Listen makes the socket at path. A socket that a dead process left is replaced; one that answers, or anything but a socket, is an error.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fault.With(fmt.Errorf("control socket %s: path of %d bytes, at most %d", path, len(path), maxSocketPath), fault.Config,
			"set socket to a shorter path")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := clear(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

// clear removes the socket of a dead process.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fault.With(fmt.Errorf("control socket %s: something else is there", path), fault.Config, "remove it, or set socket to another path")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil && orphaned(conn):
		err = conn.Close()
		if err != nil {
			return fmt.Errorf("control socket: %w", err)
		}
	case err == nil:
		return errors.Join(fault.With(fmt.Errorf("control socket %s: another mirrorbus answers on it", path), fault.Unavailable,
			"stop the other daemon, or give this one a socket of its own"), conn.Close())
	case !IsDown(err):
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// orphaned tells whether the process that made the socket at the other end is gone. A daemon that is killed while it starts a program leaves a child
// that holds the socket for a moment longer.
func orphaned(conn net.Conn) bool {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		gone = err == nil && peer.Pid > 0 && errors.Is(unix.Kill(int(peer.Pid), 0), unix.ESRCH)
	})
	return err == nil && gone
}

// Serve answers on l until ctx ends; running requests see their context end.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return base }}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := s.Shutdown(grace); err != nil {
			err = s.Close()
			stopped <- err
			return
		}
		stopped <- nil
	})
	err := s.Serve(l)
	if !stop() {
		return errors.Join(context.Cause(ctx), <-stopped)
	}
	return fmt.Errorf("control socket: %w", err)
}

// problem is how an error travels.
type problem struct {
	Error  string `json:"error"`
	Hint   string `json:"hint,omitempty"`
	Status int    `json:"exit_status"`
}

func (p problem) fault() error { return fault.With(errors.New(p.Error), p.Status, p.Hint) }

// Handle makes an http.Handler of a function from a decoded request to a response. In is read from the JSON body if there is one.
func Handle[In, Out any](f func(ctx context.Context, r *http.Request, in In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := decode(r, &in); err != nil {
			Fail(w, err)
			return
		}
		out, err := f(r.Context(), r, in)
		if err != nil {
			Fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		write(w, out)
	}
}

// decode reads the JSON body of a request, if there is one.
func decode(r *http.Request, in any) error {
	if r.ContentLength == 0 {
		return nil
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return fault.With(fmt.Errorf("read request: %w", err), fault.Usage, "")
	}
	return nil
}

// StreamOf is Stream for a function of a decoded request, as Handle has it.
func StreamOf[In any](f func(ctx context.Context, in In, send func(any) error) error) http.HandlerFunc {
	return Stream(func(ctx context.Context, r *http.Request, send func(any) error) error {
		var in In
		if err := decode(r, &in); err != nil {
			return err
		}
		return f(ctx, in, send)
	})
}

// Stream makes an http.Handler of a function that sends any number of values, each as one line of JSON.
func Stream(f func(ctx context.Context, r *http.Request, send func(any) error) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		flush := http.NewResponseController(w)
		sent := false
		err := f(r.Context(), r, func(v any) error {
			sent = true
			if err := json.NewEncoder(w).Encode(v); err != nil {
				return err
			}
			return flush.Flush()
		})
		switch {
		case err == nil || r.Context().Err() != nil:
		case !sent:
			Fail(w, err)
		default:
			write(w, problem{err.Error(), fault.HintOf(err), fault.StatusOf(err)})
		}
	}
}

// Fail answers with an error.
func Fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.StatusOf(err) {
	case fault.Usage:
		status = http.StatusBadRequest
	case fault.Unavailable, fault.TryAgain:
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	write(w, problem{err.Error(), fault.HintOf(err), fault.StatusOf(err)})
}

// write sends v; a client that has gone is nobody's fault.
func write(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v)
}
