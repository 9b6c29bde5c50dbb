package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) showCommand() *cobra.Command {
	var sshsig, trust string
	c := &cobra.Command{
		Use:     "show LINE|FILE",
		GroupID: "both",
		Short:   "show what a line, a journal file or a head file says",
		Long: `Shows what a signed line says, or a file that holds one: a head, a journal file from .mirrorbus/journal, a saved message. The signature is not judged here.

With --sshsig the signed text is written to FILE and its signature to FILE.sig, so that OpenSSH can judge them:

  mirrorbus show --sshsig line.txt --trust allowed_signers /srv/fedora/.mirrorbus/head
  ssh-keygen -Y verify -f allowed_signers -I master -n head@mirrorbus -s line.txt.sig < line.txt`,
		Example: "  mirrorbus show /srv/fedora/.mirrorbus/head\n  mirrorbus show 'mirrorbus1 change module=fedora …'",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			body := []byte(args[0])
			if !bytes.HasPrefix(body, []byte(event.Magic+" ")) {
				var err error
				if body, err = os.ReadFile(args[0]); err != nil {
					return usage(err, "give a file, or a whole line in quotes")
				}
			}
			line, set, err := envelope.Decode(body)
			if err != nil {
				return err
			}
			if sshsig != "" {
				return a.exportSSHSIG(sshsig, trust, line)
			}
			return a.show(line, set)
		},
	}
	c.Flags().StringVar(&sshsig, "sshsig", "", "write the signed text to `FILE` and the SSHSIG signature to FILE.sig")
	c.Flags().StringVar(&trust, "trust", "", "allowed_signers `FILE` with the key (a compact line does not carry it); default is the configured one")
	c.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return c
}

func (a *app) show(line, compressed []byte) error {
	s, err := event.Read(line)
	if err != nil {
		return err
	}
	var records event.PathSet
	if len(compressed) > 0 && s.Announcement != nil {
		if records, err = envelope.PathSet(compressed, s.Announcement.Set); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"schema": trigger.Schema, "kind": s.Kind, "digest": s.Digest, "announcement": s.Announcement, "head": s.Head,
			"report": s.Report, "command": s.Command, "set": trigger.Describe(records)})
	}
	fmt.Fprintf(a.out, "%s\n\ndigest  %s\n", bytes.ReplaceAll(line, []byte(" "), []byte("\n  ")), s.Digest)
	for _, r := range trigger.Describe(records) {
		fmt.Fprintln(a.out, r)
	}
	return nil
}

// exportSSHSIG writes the text and the armored signature that a line stands for.
func (a *app) exportSSHSIG(file, trust string, line []byte) error {
	if trust == "" {
		var err error
		if trust, err = a.trustFile(); err != nil {
			return fault.With(err, fault.Usage, "name the trust file with --trust")
		}
	}
	f, err := os.Open(trust)
	if err != nil {
		return err
	}
	known, _, err := signers.Parse(f, trust)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	sig, text, err := event.Signature(line, known)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(file, text, 0o644), os.WriteFile(file+".sig", sig.Armor(), 0o644)); err != nil {
		return err
	}
	s, err := event.Read(line)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "wrote %s and %s.sig, signed by %s in namespace %s\n", file, file, ssh.FingerprintSHA256(sig.Key), s.Kind.Namespace())
	return err
}

// trustFile is the trust file of whichever configuration is there.
func (a *app) trustFile() (string, error) {
	role, err := a.role()
	if err != nil {
		return "", err
	}
	if role == "master" {
		conf, err := a.masterConfig()
		if err != nil {
			return "", err
		}
		return string(conf.Trust), nil
	}
	conf, err := a.mirrorConfig()
	if err != nil {
		return "", err
	}
	return string(conf.Trust), nil
}
