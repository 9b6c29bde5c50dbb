package bench_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// bareBody is what the bare server sends: as long as an announcement.
const bareBody = 500

// bareServer is an x/crypto/ssh server that lets everybody in, keeps a session of each, and sends 500 bytes to all when it is told to.
func bareServer(ctx context.Context, all *tally) error {
	key, err := hostKeyOf()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", os.Getenv(envAddress))
	if err != nil {
		return err
	}
	s := &bare{conf: &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}}
	s.conf.AddHostKey(key)
	stop := context.AfterFunc(ctx, func() { l.Close() }) //nolint:errcheck // ends Accept
	defer stop()
	go func() {
		for range all.asked {
			s.send()
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

type bare struct {
	conf *ssh.ServerConfig
	mu   sync.Mutex
	open []ssh.Channel
}

func (s *bare) serve(c net.Conn) {
	_, channels, requests, err := ssh.NewServerConn(c, s.conf)
	if err != nil {
		c.Close() //nolint:errcheck // it comes again
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		channel, requests, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				r.Reply(true, nil) //nolint:errcheck // the connection tells
				s.mu.Lock()
				s.open = append(s.open, channel)
				s.mu.Unlock()
			}
		}()
	}
}

func (s *bare) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := make([]byte, bareBody)
	for _, c := range s.open {
		go c.Write(body) //nolint:errcheck // who has gone needs nothing
	}
}

// bareClients hold one session each with the bare server, and come back when it has gone.
func bareClients(ctx context.Context, all *tally) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	for i := range all.n {
		key, err := peerKey(i)
		if err != nil {
			return err
		}
		parts.Go(func() {
			for ctx.Err() == nil {
				if err := bareClient(ctx, key, all); err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(rand.N(time.Second)): // as transports.Keep waits at first
					}
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}

func bareClient(ctx context.Context, key ssh.Signer, all *tally) error {
	conf := &ssh.ClientConfig{User: "mirror", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: time.Minute}
	c, err := ssh.Dial("tcp", os.Getenv(envAddress), conf)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck // ends the session
	defer stop()
	defer c.Close() //nolint:errcheck // likewise
	session, err := c.NewSession()
	if err != nil {
		return err
	}
	out, err := session.StdoutPipe()
	if err = errors.Join(err, session.Start("subscribe")); err != nil {
		return err
	}
	all.connect(1)
	defer all.connect(-1)
	for body := make([]byte, bareBody); ; {
		if _, err := io.ReadFull(out, body); err != nil {
			return err
		}
		all.heard()
	}
}
