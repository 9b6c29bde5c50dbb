package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/statelock"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/daemon"
	"github.com/mirrorbus/mirrorbus/listener/forced"
	"github.com/mirrorbus/mirrorbus/transports/ssh"
)

func (a *app) receiveCommand() *cobra.Command {
	noWait, alone, byMail, socket, sender := false, false, false, "", ""
	c := &cobra.Command{
		Use:     "receive",
		GroupID: "mirror",
		Short:   "take what a master pushes by ssh: the forced command of its key; or a mail",
		Long: `Takes announcements and hands them to the running agent. It is the forced command of a master's key in authorized_keys; what it was asked for
is in SSH_ORIGINAL_COMMAND. It hands over signed lines from standard input, one signed line that is the command itself, or what a master sends that
stays connected ("push v1"), and answers "have MODULE" with EPOCH:SERIAL. Anything else is refused. It prints "received MODULE SERIAL" when the agent
has an announcement safe, and then the mirror's signed reports as they come. That it succeeds means that all was received, and nothing else.

It also takes what Debian's runmirrors sends, "sync:archive:NAME sync:all" and its kin, for modules whose section has push = ["NAME"]. Such a push is not
signed and does not say what has changed, so the upstream is asked, and looked through where it cannot tell. Its success means that all is done; one
that is refused or fails ends with 255, the only status that runmirrors does not take for success.

With --mail it hands one mail from standard input to the daemon, for a mail server that pipes mail into programs. Its exit status is then for that: 0 the
mail is stored, or of no use; 75 keep it and come again; 77 send it back. It prints nothing, or one line that begins with "4.3.0" or "5.7.1".`,
		Example: `  restrict,command="mirrorbus receive" ssh-ed25519 AAAA… master     (a line of ~/.ssh/authorized_keys)
  master$ ssh mirror1 have fedora
  master$ ssh mirror1 < announcement
  mirrorbus: "|/usr/bin/mirrorbus receive --mail --socket 127.0.0.1:2424"     (a line of /etc/aliases)`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if byMail {
				return a.receiveMail(c.Context(), socket, sender)
			}
			return a.receive(c.Context(), !noWait, alone)
		},
	}
	c.Flags().BoolVar(&alone, "alone", false, "if no agent runs, be the agent until everything is done that was handed over: for hosts without a daemon")
	c.Flags().BoolVar(&noWait, "no-wait", false, "end when all was received, without waiting for what becomes of it")
	c.Flags().BoolVar(&byMail, "mail", false, "take one mail from standard input, as a mail server's pipe")
	c.Flags().StringVar(&socket, "socket", "", "with --mail: `WHERE` the daemon takes mail, without looking into the configuration (default: lmtp of [transport.mail])")
	c.Flags().StringVar(&sender, "sender", os.Getenv("SENDER"), "with --mail: the `ADDRESS` on its envelope (default: $SENDER)")
	return c
}

func (a *app) receive(ctx context.Context, wait, alone bool) error {
	order, err := forced.Parse(os.Getenv("SSH_ORIGINAL_COMMAND"))
	if err != nil {
		return err
	}
	conf, err := a.mirrorConfig()
	if err != nil {
		return notDone(order, err)
	}
	section, ok := conf.Transport[ssh.Name].(*ssh.MirrorConfig)
	if !ok && order.Verb != forced.Sync {
		return fault.With(errors.New("the configuration has no [transport.ssh]"), fault.Config, "add the section; its defaults will do")
	}
	from, _, _ := strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
	if order.Verb == forced.Sync {
		return a.receiveSync(ctx, conf, told{order.Sync, from, wait || order.Sync.Callback, alone})
	}
	door := forced.Door{Socket: string(section.Socket), From: from, In: a.in, Out: a.out}
	door.Patience = section.WriteTimeout.Duration
	if wait {
		door.Wait = longestWork
	}
	if !alone {
		return door.Open(ctx, order)
	}
	return a.receiveAlone(ctx, conf, door, order)
}

// longestWork bounds how long is waited for what becomes of an announcement, and how long a receiver without an agent goes on trying what failed.
const longestWork = time.Hour

// receiveAlone hands over to the agent, or to another receiver that is one at the moment, and is one itself if there is none.
func (a *app) receiveAlone(ctx context.Context, conf *listener.Config, door forced.Door, order forced.Order) error {
	if err := door.Read(&order); err != nil {
		return err
	}
	for {
		err := door.Open(ctx, order)
		if !errors.Is(err, forced.ErrNobody) {
			return err
		}
		err = a.alone(ctx, conf, func(ctx context.Context, d *daemon.Daemon) error { return a.agentFor(ctx, d, door, order) })
		if !errors.Is(err, statelock.ErrInUse) {
			return err
		}
		select { // somebody else has become the agent, and is about to listen
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// agentFor carries out an order with an agent that has just been started for it, and lets that come to rest: what others have handed over meanwhile is
// done as well, whether the one who handed over still listens or not.
func (a *app) agentFor(ctx context.Context, d *daemon.Daemon, door forced.Door, order forced.Order) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	accepted, done := make(chan struct{}), make(chan error, 1)
	door.Accepted = sync.OnceFunc(func() { close(accepted) })
	go func() { done <- door.Knock(ctx, order) }()
	var err error
	select {
	case <-accepted:
	case err = <-done:
		done <- err
	}
	if left := d.Rest(ctx, longestWork); left != nil {
		a.log().Warn("left for later", "error", left)
	}
	time.AfterFunc(lastWords, stop)
	if err = <-done; errors.Is(err, context.Canceled) {
		return nil // it was accepted, and nothing more is to be told
	}
	return err
}

// lastWords is how long what became of an announcement may take to be told when all is done.
const lastWords = 2 * time.Second
