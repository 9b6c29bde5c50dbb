package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

// TestMailStatus: nothing but a refusal of what somebody known has sent makes a mail server send mail back, and no secret or trace is ever printed.
func TestMailStatus(t *testing.T) {
	for _, c := range []struct {
		name   string
		do     func() error
		status int
		says   string
	}{
		{"taken", func() error { return nil }, 0, ""},
		{"refused", func() error { return fmt.Errorf("%w: not your module", mail.ErrNotTaken) }, 77, "5.7.1 mirrorbus: refused: not your module\n"},
		{"agent away", func() error { return mail.ErrNobody }, 75, "4.3.0 mirrorbus: the agent does not answer\n"},
		{"a bad configuration", func() error { return fault.With(errors.New("bad"), fault.Config, "mend it") }, 75, "4.3.0 mirrorbus: bad\n"},
		{"several lines", func() error { return errors.New("one\ntwo") }, 75, "4.3.0 mirrorbus: one\n"},
		{"a panic", func() error { panic("goroutine 1 [running]") }, 75, "4.3.0 mirrorbus made a mistake\n"},
	} {
		var out bytes.Buffer
		a := &app{out: &out, err: &out}
		if status := a.mailStatus(c.do); status != c.status || out.String() != c.says {
			t.Errorf("%s: status %d, %q, want %d, %q", c.name, status, &out, c.status, c.says)
		}
	}
	var out, errw bytes.Buffer
	if status := run(context.Background(), []string{"receive", "--mail", "--no-such-flag"}, strings.NewReader(""), &out, &errw); status != 75 || errw.Len() > 0 {
		t.Errorf("a wrong flag: status %d, %s%s", status, &out, &errw)
	}
}
