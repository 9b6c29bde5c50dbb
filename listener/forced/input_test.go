package forced

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Who sends nothing, or a byte now and then, does not keep a process for ever; who is slow and goes on has ten times as long.
func TestInputThatDoesNotEnd(t *testing.T) {
	for name, c := range map[string]struct {
		pause time.Duration
		bytes int
		good  bool
	}{
		"nothing":                {time.Hour, 1, false},
		"a byte now and then":    {50 * time.Second, 1000, false},
		"slow, and then the end": {50 * time.Second, 5, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := io.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for range c.bytes {
						time.Sleep(c.pause)
						if _, err := out.Write([]byte("x")); err != nil {
							return
						}
					}
					out.Close()
				}()
				began := time.Now()
				body, err := readAll(in, time.Minute)
				if took := time.Since(began); took > 11*time.Minute {
					t.Errorf("took %v", took)
				}
				in.Close()
				<-done
				switch {
				case c.good && (err != nil || string(body) != strings.Repeat("x", c.bytes)):
					t.Errorf("%q, %v", body, err)
				case !c.good && !errors.Is(err, os.ErrDeadlineExceeded):
					t.Errorf("%q, %v", body, err)
				}
			})
		})
	}
}
