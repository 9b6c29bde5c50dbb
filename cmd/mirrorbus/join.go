package main

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports/hub"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// joinOf gathers what a mirror must know of the configured master.
func joinOf(conf *trigger.Config, address string) (enrol.Join, error) {
	if _, err := splitHost(&address); err != nil {
		return enrol.Join{}, err
	}
	server, ok := conf.Transport["hub"].(*hub.ServerConfig)
	if !ok {
		return enrol.Join{}, fault.With(errors.New("the configuration has no [transport.hub] to join"), fault.Config, "")
	}
	hostKey, err := hub.LoadHostKey(string(server.HostKey))
	if err != nil {
		return enrol.Join{}, err
	}
	key, err := signers.OpenSigner(string(conf.Key), os.Getenv("SSH_AUTH_SOCK"))
	if err != nil {
		return enrol.Join{}, err
	}
	j := enrol.Join{Hub: address, HubKey: keyLine(hostKey.PublicKey()), Master: conf.Name, Key: keyLine(key.PublicKey())}
	for _, m := range conf.Modules {
		j.Modules = append(j.Modules, enrol.Module{Name: m.Name, Upstream: m.Upstream})
	}
	return j, nil
}

func keyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
