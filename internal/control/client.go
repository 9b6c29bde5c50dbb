package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A Client talks to the daemon behind a socket.
type Client struct {
	path string
	http http.Client
}

// NewClient makes a client; nothing is dialled yet.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // a command asks once or twice; nothing is left to close
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}}
}

// IsDown tells whether err says that no daemon listens on the socket.
func IsDown(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Do sends in as JSON (none if nil) and reads the answer into out (ignored if nil).
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("answer of the daemon: %w", err)
	}
	return nil
}

// Each reads a stream line by line and gives each to f until it ends or f fails.
func (c *Client) Each(ctx context.Context, path string, f func(json.RawMessage) error) error {
	return c.Stream(ctx, http.MethodGet, path, f)
}

// Stream is Each for any method.
func (c *Client) Stream(ctx context.Context, method, path string, f func(json.RawMessage) error) error {
	return c.StreamOf(ctx, method, path, nil, f)
}

// StreamOf is Stream with in sent as JSON.
func (c *Client) StreamOf(ctx context.Context, method, path string, in any, f func(json.RawMessage) error) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fault.With(fmt.Errorf("the daemon ended its answer: %w", err), fault.Unavailable, "see whether it still runs")
		}
		var p problem
		if json.Unmarshal(raw, &p) == nil && p.Error != "" && p.Status != 0 {
			return p.fault()
		}
		if err := f(raw); err != nil {
			return err
		}
	}
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://mirrorbus"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fault.With(fmt.Errorf("ask the daemon on %s: %w", c.path, err), fault.Unavailable, "see whether the daemon runs and whether you may open its socket")
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var p problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Error == "" {
		return nil, fmt.Errorf("the daemon on %s answered %s", c.path, resp.Status)
	}
	return nil, p.fault()
}
