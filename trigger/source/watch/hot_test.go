package watch

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// A file that is written for longer than it may be held back is announced as it is, with a warning that names it, and once more when it is closed.
func TestFileWrittenForLong(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.watch(Options{Backend: backend, Timing: Timing{HotAtMost: openEvery}})
		n, _ := r.m.times()
		f, err := os.Create(r.path("growing"))
		r.must(err)
		testenv.WaitFor(t, 20*time.Second, func() error { // which asks again every few milliseconds
			if _, err := f.WriteString("more and more"); err != nil {
				return err
			}
			if len(r.m.names(n)) == 0 {
				return errors.New("it is not announced")
			}
			return nil
		})
		if warned := r.log.lines("announced while it is being written"); len(warned) != 1 || !strings.Contains(warned[0], "level=WARN") || !strings.Contains(warned[0], "path=growing") {
			t.Errorf("warned %q", warned)
		}
		_, err = f.WriteString("the end")
		r.must(errors.Join(err, f.Close()))
		testenv.WaitFor(t, 20*time.Second, func() error { return r.m.differs(everyName) })
	})
}

// A file that changes all the time is named in the log, once, and keeps no others waiting.
func TestHotFileIsNamed(t *testing.T) {
	onEach(t, func(t *testing.T, backend string) {
		r := newRig(t)
		r.watch(Options{Backend: backend, Timing: Timing{Quiet: time.Millisecond, AtMost: 3 * time.Second, HotAfter: 2, HotAtMost: 3 * time.Second}})
		written := 0
		testenv.WaitFor(t, 20*time.Second, func() error {
			written++
			r.write("log", fmt.Sprint(written))
			if len(r.log.lines("hot file: it changes all the time")) == 0 {
				return errors.New("nothing is said")
			}
			return nil
		})
		r.write("other", "x")
		testenv.WaitFor(t, 20*time.Second, func() error { return r.m.differs(func(p string) bool { return p == "other" }) })
		if s := r.w.Status(); s.Held != 1 || s.Oldest != "log" {
			t.Errorf("held back are %d, the oldest is %q", s.Held, s.Oldest)
		}
		testenv.WaitFor(t, 20*time.Second, func() error { return r.m.differs(everyName) })
		if warned := r.log.lines("hot file"); len(warned) != 1 || !strings.Contains(warned[0], "path=log") {
			t.Errorf("warned %q", warned)
		}
	})
}
