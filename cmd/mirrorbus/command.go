package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/identity"
)

func (a *app) commandCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "command",
		GroupID: "master",
		Short:   "give a master a command by IRC",
		Long:    "Signs commands that a master obeys which hears them on IRC. Who may is said by [[commander]] in the master's configuration.",
	}
	c.AddCommand(a.commandSignCommand())
	return c
}

// commandOptions are what a command to be signed says beside its paths.
type commandOptions struct {
	to, key string
	flip    bool
	ttl     time.Duration
}

func (a *app) commandSignCommand() *cobra.Command {
	var o commandOptions
	c := &cobra.Command{
		Use:   "sign --to MASTER --key FILE MODULE [PATH…]",
		Short: "sign a command, and print the line to say",
		Long: `Signs a command and prints it as one line, to be said in the channel or to the master by private message. The master announces the paths as they are
then, as "mirrorbus publish" does; without paths it tells the mirrors where it stands. It obeys once, and only in time.

The key is one that the master's trust file knows, with namespaces="command@mirrorbus", of a principal that is named by a [[commander]] there. It need not be on
the master. A public key file lets the ssh-agent of SSH_AUTH_SOCK sign.`,
		Example: "  mirrorbus command sign --to master --key ~/.ssh/id_ed25519.pub fedora updates/43\n  mirrorbus command sign --to master --key key --flip --ttl 2m fedora releases/43",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.signCommand(o, args) },
	}
	c.Flags().StringVar(&o.to, "to", "", "`NAME` of the master that is to obey (name in its configuration)")
	c.Flags().StringVar(&o.key, "key", "", "private key `FILE`, or a .pub file whose private half ssh-agent has")
	c.Flags().BoolVar(&o.flip, "flip", false, "only metadata changed, of content that mirrors have")
	c.Flags().DurationVar(&o.ttl, "ttl", 10*time.Minute, "how `LONG` it may be obeyed, up to 24h")
	return c
}

// maxSaid is the longest line that fits into a message of IRC from anybody: what is longer the server may cut.
const maxSaid = 400

func (a *app) signCommand(o commandOptions, args []string) error {
	if o.to == "" || o.key == "" {
		return usage(errors.New("--to and --key are needed"), "see mirrorbus command sign --help")
	}
	module, err := event.ParseModule(args[0])
	if err != nil {
		return usage(err, "")
	}
	if _, err := event.ParsePrincipal(o.to); err != nil {
		return usage(fmt.Errorf("--to: %w", err), "it is name in the master's configuration")
	}
	signer, err := signers.OpenSigner(o.key, new(identity.Config).AgentSocket())
	if err != nil {
		return usage(fmt.Errorf("--key: %w", err), "")
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails, since Go 1.24
	order := event.SyncNow
	if o.flip {
		order = event.FlipNow
	}
	line, err := event.Seal(event.Command{Module: module, Master: o.to, At: time.Now().UTC().Truncate(time.Second), TTL: o.ttl, Nonce: hex.EncodeToString(nonce[:]),
		Order: order, Paths: args[1:]}, signer)
	if err != nil {
		return err
	}
	if _, err := event.Read(line); err != nil {
		return usage(err, "give --ttl of at most 24h, a path for a flip, and at most 100 paths")
	}
	if len(line) > maxSaid {
		return usage(fmt.Errorf("the line has %d bytes, and a message of IRC takes %d", len(line), maxSaid),
			"name a directory in place of many paths, sign several commands, or use an ed25519 key")
	}
	_, err = fmt.Fprintln(a.out, strings.TrimSpace(string(line)))
	return err
}
