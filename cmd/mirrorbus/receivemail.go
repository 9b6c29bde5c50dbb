package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports/mail"
)

// noPermission is EX_NOPERM of sysexits.h: the mail server sends the mail back.
const noPermission = 77

// byMail tells whether a mail server runs this, whatever else stands on the command line. It is answered in its own way: see mailStatus.
func byMail(args []string) bool {
	return slices.Contains(args, "receive") && slices.Contains(args, "--mail")
}

// mailStatus runs what a mail server wants done and returns the exit status that makes it do the right thing: 0, the mail is here, or is of no use; 75, keep
// it and come again; 77, send it back, which is only said of mail of the other side that is never to be taken. Everything unexpected is 75: another status
// would send what is printed to whoever's address the mail has. The line that is printed begins with the status code that mail servers pass on (RFC 3463).
func (a *app) mailStatus(do func() error) (status int) {
	defer func() {
		if p := recover(); p != nil { // where and why stays here: the text could go to a stranger
			fmt.Fprintln(a.out, "4.3.0 mirrorbus made a mistake")
			status = fault.TryAgain
		}
	}()
	err := do()
	if err == nil {
		return fault.OK
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	if errors.Is(err, mail.ErrNotTaken) {
		fmt.Fprintln(a.out, "5.7.1 mirrorbus:", text)
		return noPermission
	}
	fmt.Fprintln(a.out, "4.3.0 mirrorbus:", text)
	return fault.TryAgain
}

// receiveMail hands the mail on standard input to the daemon.
func (a *app) receiveMail(ctx context.Context, socket, sender string) error {
	if socket == "" {
		conf, err := a.mirrorConfig()
		if err != nil {
			return err
		}
		section, ok := conf.Transport[mail.Name].(*mail.MirrorConfig)
		if !ok {
			return fault.With(errors.New("the configuration has no [transport.mail]"), fault.Config, "add the section, or say --socket")
		}
		socket = section.LMTP
	}
	return mail.HandOver(ctx, socket, sender, a.in)
}
