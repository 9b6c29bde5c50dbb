package listener

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/inbox"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestWhatAnErrorMeans(t *testing.T) {
	class := func(c rsync.Class) error { return fmt.Errorf("stage: %w", &rsync.Error{Class: c, Code: 1}) }
	for name, test := range map[string]struct {
		err   error
		state State
		most  time.Duration // until the tenth retry; 0: not by itself
	}{
		"upstream behind": {&behindError{at: 1, want: 2}, Waiting, 30 * time.Second},
		"disk full":       {class(rsync.DiskFull), Blocked, 30 * time.Second},
		"no space here":   {fmt.Errorf("rename: %w", syscall.ENOSPC), Blocked, 30 * time.Second},
		"held":            {&heldError{"too many"}, Held, 0},
		"max delete":      {class(rsync.MaxDelete), Held, 0},
		"busy":            {class(rsync.Busy), Retrying, 2 * time.Minute},
		"vanished":        {class(rsync.Vanished), Retrying, 30 * time.Second},
		"partial":         {class(rsync.Partial), Retrying, 30 * time.Second},
		"unavailable":     {class(rsync.Unavailable), Retrying, 5 * time.Minute},
		"password":        {class(rsync.Auth), Retrying, 30 * time.Minute},
		"wrong option":    {class(rsync.Permanent), Retrying, 30 * time.Minute},
		"hook: later":     {&hook.ExitError{Status: hook.TryAgain}, Retrying, 2 * time.Minute},
		"hook":            {&hook.ExitError{Status: 1}, Retrying, 5 * time.Minute},
		"limited":         {&laterError{time.Minute, "x"}, Retrying, 2 * time.Minute},
		"other":           {errors.New("x"), Retrying, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			var tr inbox.Trouble
			for range 10 {
				tr = pace.After(tr, failureOf(test.err, 7), noon, 0.999999)
			}
			if tr.Kind != string(test.state) || tr.Attempts != 10 || tr.Through != 7 || !tr.Since.Equal(noon) {
				t.Fatalf("%+v", tr)
			}
			if test.most == 0 && !tr.Next.IsZero() || test.most > 0 && (tr.Next.After(noon.Add(test.most)) || tr.Next.Before(noon.Add(test.most*9/10))) {
				t.Errorf("next %v, want up to %v", tr.Next.Sub(noon), test.most)
			}
		})
	}
}
