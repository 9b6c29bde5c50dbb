package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socket is a path short enough for a socket; that of t.TempDir may not be.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "run", "s")
}

// serve serves h until the test, or the returned stop, ends it.
func serve(t *testing.T, h http.Handler) (client *control.Client, stop func() error) {
	t.Helper()
	path := socket(t)
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, h) }()
	ended := false
	stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("Serve did not return")
		}
	}
	t.Cleanup(func() {
		if err := stop(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return control.NewClient(path), stop
}

type sum struct{ A, B int }

func TestDo(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("POST /add", control.Handle(func(_ context.Context, _ *http.Request, in sum) (int, error) { return in.A + in.B, nil }))
	c, _ := serve(t, mux)
	var got int
	if err := c.Do(t.Context(), "POST", "/add", sum{1, 2}, &got); err != nil || got != 3 {
		t.Errorf("got %d, %v", got, err)
	}
	if err := c.Do(t.Context(), "POST", "/add", nil, nil); err != nil {
		t.Errorf("without a body: %v", err)
	}
	err := c.Do(t.Context(), "POST", "/add", map[string]int{"C": 1}, nil)
	if fault.StatusOf(err) != fault.Usage || !strings.Contains(err.Error(), "read request") {
		t.Errorf("an unknown field: %v", err)
	}
	if err := c.Do(t.Context(), "POST", "/add", sum{}, &struct{}{}); err == nil || !strings.Contains(err.Error(), "answer of the daemon") {
		t.Errorf("an answer of another form: %v", err)
	}
	if err := c.Do(t.Context(), "GET", "/nowhere", nil, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an unknown path: %v", err)
	}
}

// An error comes out of the client as it went into the handler: its text, its hint, its exit status.
func TestErrorsTravel(t *testing.T) {
	want := fault.With(errors.New("module x is not one of ours"), 0, "")
	mux := http.NewServeMux()
	mux.Handle("/do", control.Handle(func(context.Context, *http.Request, struct{}) (int, error) { return 0, want }))
	mux.Handle("/stream", control.Stream(func(context.Context, *http.Request, func(any) error) error { return want }))
	mux.Handle("/late", control.Stream(func(_ context.Context, _ *http.Request, send func(any) error) error {
		return errors.Join(send("first"), want)
	}))
	c, _ := serve(t, mux)
	for _, status := range []int{fault.Failed, fault.Usage, fault.Unavailable, fault.TryAgain, fault.Config} {
		want = fault.With(fmt.Errorf("it ends with %d", status), status, fmt.Sprint("try ", status))
		got := map[string]error{"do": c.Do(t.Context(), "GET", "/do", nil, nil)}
		for _, path := range []string{"stream", "late"} {
			got[path] = c.Each(t.Context(), "/"+path, func(json.RawMessage) error { return nil })
		}
		for path, err := range got {
			if err == nil || err.Error() != want.Error() || fault.StatusOf(err) != status || fault.HintOf(err) != fault.HintOf(want) {
				t.Errorf("%s: got %v (status %d, hint %q), want status %d", path, err, fault.StatusOf(err), fault.HintOf(err), status)
			}
		}
	}
}

func TestStream(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/count", control.Stream(func(_ context.Context, _ *http.Request, send func(any) error) error {
		for i := range 3 {
			if err := send(sum{i, 0}); err != nil {
				return err
			}
		}
		return nil
	}))
	c, _ := serve(t, mux)
	var got []string
	err := c.Each(t.Context(), "/count", func(raw json.RawMessage) error {
		got = append(got, string(raw))
		return nil
	})
	if want := `[{"A":0,"B":0} {"A":1,"B":0} {"A":2,"B":0}]`; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v", got, err)
	}
	enough := errors.New("enough")
	if err := c.Each(t.Context(), "/count", func(json.RawMessage) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v, want the reader's error", err)
	}
}

// endless is a stream that sends one value and then waits for its context. closed tells when one has ended.
func endless() (h http.Handler, closed chan struct{}) {
	closed = make(chan struct{}, 10)
	return control.Stream(func(ctx context.Context, _ *http.Request, send func(any) error) error {
		defer func() { closed <- struct{}{} }()
		if err := send("first"); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}), closed
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("waited in vain: " + what)
	}
}

// What is sent arrives at once, and a client that goes ends the stream.
func TestAClientThatGoesEndsItsStream(t *testing.T) {
	h, closed := endless()
	c, _ := serve(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := c.Each(ctx, "/", func(json.RawMessage) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wait(t, "the end of the stream", closed)
}

// A daemon that stops ends its streams, answers nobody any more, and leaves no socket behind.
func TestShutdown(t *testing.T) {
	h, closed := endless()
	c, stop := serve(t, h)
	first, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- c.Each(context.Background(), "/", func(json.RawMessage) error { first <- struct{}{}; return nil })
	}()
	wait(t, "the first value", first)
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve returned %v", err)
	}
	wait(t, "the end of the stream", closed)
	if err := <-ended; err != nil && fault.StatusOf(err) != fault.Unavailable {
		t.Errorf("the client got %v", err)
	}
	err := c.Do(t.Context(), "GET", "/", nil, nil)
	if !control.IsDown(err) || fault.StatusOf(err) != fault.Unavailable || fault.HintOf(err) == "" {
		t.Errorf("asked when it is down: %v", err)
	}
}

func TestServeSaysWhyItCannot(t *testing.T) {
	l, err := control.Listen(socket(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := control.Serve(t.Context(), l, http.NotFoundHandler()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	stopped, cancel := context.WithCancelCause(t.Context())
	why := errors.New("stopped before it began")
	cancel(why)
	if l, err = control.Listen(socket(t)); err != nil {
		t.Fatal(err)
	}
	if err := control.Serve(stopped, l, http.NotFoundHandler()); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestListen(t *testing.T) {
	path := socket(t)
	stale, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v; want 0660", info.Mode(), err)
	}
	if _, err := control.Listen(path); fault.StatusOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "another mirrorbus answers") {
		t.Errorf("a live socket: %v", err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false) // as if its process had been killed
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := control.Listen(path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestListenRefuses(t *testing.T) {
	file := filepath.Join(filepath.Dir(filepath.Dir(socket(t))), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(file); fault.StatusOf(err) != fault.Config || !strings.Contains(err.Error(), "something else is there") {
		t.Errorf("a file: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file is now %q, %v", text, err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 108))
	if _, err := control.Listen(long); fault.StatusOf(err) != fault.Config || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("a long path: %v", err)
	}
	if _, err := control.Listen(filepath.Join(file, "s")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
}
