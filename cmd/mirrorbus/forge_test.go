package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// An impostor is a hub at the address of the real one and with its host key: a mirror talks to it and lets it say what it likes. What the mirror
// believes is up to its trust file alone.
type impostor struct {
	*hub.Server
	sent int
}

func (*impostor) Connected()                                        { /* nobody waits for it */ }
func (*impostor) Receive(context.Context, transports.Message) error { return nil }

// startImpostor runs an impostor in place of the hub, until the script ends or the impostor is told to go: impostor HOST_KEY, impostor stop.
func startImpostor(ts *testscript.TestScript, _ bool, args []string) {
	s := sceneOf(ts)
	if args[0] == "stop" {
		s.stopImpostor()
		return
	}
	conf := *hub.DefaultServerConfig()
	conf.Listen, conf.HostKey = ts.Getenv("HUB"), config.Path(ts.MkAbs(args[0]))
	server, err := hub.NewServer(conf, transports.Env{Self: "impostor", PeerName: func(ssh.PublicKey) (string, error) { return "somebody", nil }})
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s.impostor = &impostor{Server: server}
	go func() {
		ended <- server.Run(ctx, []transports.Subscription{{Topic: transports.Topic{Kind: transports.Report, Module: "fedora"}}}, s.impostor)
	}()
	s.stopImpostor = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			s.t.Errorf("impostor: %v", err)
		}
		s.stopImpostor = func() {}
	}
	ts.Defer(func() { s.stopImpostor() })
}

// inject lets the impostor deliver what a file holds to every mirror that has subscribed: inject FILE [MODULE OF THE TOPIC].
func inject(ts *testscript.TestScript, _ bool, args []string) {
	i := sceneOf(ts).impostor
	waitFor(ts, "a mirror subscribes", func() error {
		for _, p := range i.Peers() {
			if p.Subscribed {
				return nil
			}
		}
		return errors.New("none has")
	})
	i.sent++
	m := transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: "fedora"}, ID: fmt.Sprint("evil-", i.sent), Body: []byte(ts.ReadFile(args[0]))}
	if len(args) == 2 {
		m.Topic.Module = args[1]
	}
	ts.Check(i.Publish(context.Background(), m))
}

// forge makes an announcement that follows another one, with the path set that goes with it:
//
//	forge FILE KEY BASE [field=value…] NAME…
//
// BASE is a journal file or another FILE. KEY is a private key, or "-" for none. A NAME is one that is said to be gone, so that it shows when the
// announcement is believed. The fields are serial, module, epoch and at (a duration from now).
func forge(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 4 {
		ts.Fatalf("usage: forge FILE KEY BASE [field=value…] NAME…")
	}
	line, _, err := envelope.Decode([]byte(ts.ReadFile(args[2])))
	ts.Check(err)
	base, err := event.Read(line)
	ts.Check(err)
	a := *base.Announcement
	a.Kind, a.Serial, a.Prev, a.At = event.Change, a.Serial+1, base.Digest, time.Now().UTC().Truncate(time.Second)
	var gone []event.Record
	for _, arg := range args[3:] {
		if key, value, ok := strings.Cut(arg, "="); ok {
			ts.Check(change(&a, key, value))
			continue
		}
		gone = append(gone, event.Record{Op: event.Gone, Path: arg})
	}
	set, err := event.NewPathSet(gone)
	ts.Check(err)
	a.Set, a.Count = set.Digest(), len(set)
	line = a.Text()
	if args[1] != "-" {
		key, err := signers.LoadSigner(ts.MkAbs(args[1]))
		ts.Check(err)
		line, err = event.Seal(a, key)
		ts.Check(err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), envelope.Encode(line, envelope.Compress(set.Encode())), 0o644))
}

func change(a *event.Announcement, key, value string) error {
	switch key {
	case "serial":
		n, err := strconv.ParseUint(value, 10, 64)
		a.Serial = event.Serial(n)
		return err
	case "module":
		a.Module = event.Module(value)
	case "epoch":
		a.Epoch = event.Epoch(value)
	case "at":
		d, err := time.ParseDuration(value)
		a.At = a.At.Add(d)
		return err
	default:
		return fmt.Errorf("forge: no field %s", key)
	}
	return nil
}
