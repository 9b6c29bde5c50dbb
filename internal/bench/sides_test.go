package bench_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/hub"
)

// deaf is the receiver of a master that nobody reports to.
type deaf struct{}

func (deaf) Connected()                                        {}
func (deaf) Receive(context.Context, transports.Message) error { return nil }

// keep runs a transport until the side ends.
func (s *side) keep(t transports.Transport, topic transports.Topic, r transports.Receiver, o transports.KeepOptions) {
	s.parts.Go(func() {
		transports.Keep(s.ctx, t, []transports.Subscription{{Topic: topic}}, r, o) //nolint:errcheck // it ends with ctx only
	})
}

func (s *side) listen(t transports.Transport) {
	l := &listener{side: s}
	s.keep(t, announced, l, transports.KeepOptions{State: l.state})
}

// lead runs the master's transport, by which the side publishes.
func (s *side) lead(t *transports.CheckedTransport) {
	s.keep(t, transports.Topic{Kind: transports.Report, Module: module}, deaf{}, transports.KeepOptions{})
	s.publish = func(ctx context.Context, ms []transports.Message) []error {
		if batch := t.Batch(); batch != nil {
			return batch.PublishAll(ctx, ms)
		}
		var errs []error
		for _, m := range ms {
			errs = append(errs, t.Publish(ctx, m))
		}
		return errs
	}
}

// ours is the transport of mirrorbus on a broker.
func (r *broker) ours(n int) (*side, error) {
	s := r.b.side("mirrorbus", n)
	master, err := r.open(transports.Master, "master")
	if err != nil {
		return s, err
	}
	s.lead(master)
	for i := range n {
		mirror, err := r.open(transports.Mirror, fmt.Sprint("mirror-", i))
		if err != nil {
			return s, err
		}
		s.listen(mirror)
	}
	return s, nil
}

// bare is the library alone on a broker.
func (r *broker) bare(n int) *side {
	s := r.b.side("bare amqp091-go", n)
	p := &barePublisher{broker: r}
	s.publish = p.publish
	s.parts.Go(func() { p.run(s.ctx) })
	for range n {
		s.parts.Go(func() { r.bareListener(&listener{side: s}) })
	}
	return s
}

// hubSide is the embedded hub and its clients.
func (b *bench) hubSide(n int) (*side, error) {
	s := b.side("the hub", n)
	conf := hub.DefaultServerConfig()
	conf.Listen, conf.HostKey = fmt.Sprint("127.0.0.1:", testenv.FreePort(b.T)), config.Path(filepath.Join(b.dir, "host_key"))
	public, err := writeHostKey(string(conf.HostKey))
	if err != nil {
		return s, err
	}
	keys, names := make([]ssh.Signer, n), map[string]string{}
	for i := range keys {
		if keys[i], err = peerKey(i); err != nil {
			return s, err
		}
		names[string(keys[i].PublicKey().Marshal())] = fmt.Sprint("mirror-", i)
	}
	registry := transports.Registry{hub.Driver()}
	master, err := registry.Open(transports.Master, "hub", conf, transports.Env{Self: "master", PeerName: func(key ssh.PublicKey) (string, error) {
		if name := names[string(key.Marshal())]; name != "" {
			return name, nil
		}
		return "", errors.New("unknown")
	}})
	if err != nil {
		return s, err
	}
	s.lead(master)
	for i, key := range keys {
		client := hub.DefaultClientConfig()
		client.Address, client.HostKey = conf.Listen, string(ssh.MarshalAuthorizedKey(public))
		mirror, err := registry.Open(transports.Mirror, "hub", client, transports.Env{Self: fmt.Sprint("mirror-", i), Signer: key})
		if err != nil {
			return s, err
		}
		s.listen(mirror)
	}
	return s, nil
}

// writeHostKey makes the key of a hub.
func writeHostKey(path string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
	}
	if err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(public)
}
