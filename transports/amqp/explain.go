package amqp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/mirrorbus/mirrorbus/transports"
)

// explain says what an error of the library or of TLS means for who runs this process, and whether trying again can help.
func explain(server string, err error) error {
	var a *amqp091.Error
	if errors.As(err, &a) {
		return explainReply(server, a)
	}
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &name):
		return permanent(server, "its certificate is for another name: %v; correct servers, or set server_name", err)
	case errors.As(err, &unknown):
		return permanent(server, "its certificate is not signed by anybody who is trusted; name the right file in ca_file")
	case errors.As(err, &invalid):
		return permanent(server, "its certificate is not valid: %v", err)
	case errors.As(err, &record):
		return permanent(server, "it does not speak TLS on this port; the port for TLS is 5671 usually")
	}
	if alert := explainAlert(server, err); alert != nil {
		return alert
	}
	return fmt.Errorf("broker %s: %w", server, err)
}

func permanent(server, format string, args ...any) error {
	return transports.Permanent(fmt.Errorf("broker %s: "+format, append([]any{server}, args...)...))
}

// explainAlert explains why the broker ends TLS, nil if it does not. In TLS 1.3 it says so after the handshake, to whoever reads first.
func explainAlert(server string, err error) error {
	_, alert, found := strings.Cut(err.Error(), "remote error: tls: ")
	if !found {
		return nil
	}
	if strings.Contains(alert, "certificate") {
		return permanent(server, "it does not take our certificate (%s); see cert_file and key_file", strings.TrimRight(alert, `"`))
	}
	return permanent(server, "it ends TLS: %s", strings.TrimRight(alert, `"`))
}

// explainReply explains what the broker has answered, or what the library says in its place.
func explainReply(server string, a *amqp091.Error) error {
	switch {
	case a == amqp091.ErrSASL:
		return permanent(server, "it offers no way to log in that is configured here; with a certificate alone it needs the plugin rabbitmq_auth_mechanism_ssl")
	case a == amqp091.ErrCredentials, a.Code == amqp091.AccessRefused && strings.Contains(a.Reason, "Login was refused"):
		return permanent(server, "it refuses the user or the password; with a certificate alone, the user has the name that is in it")
	case a == amqp091.ErrVhost, a.Code == amqp091.NotAllowed && strings.Contains(a.Reason, "vhost"):
		return permanent(server, "there is no such vhost, or this user may not use it: %s", a.Reason)
	case a.Code == amqp091.AccessRefused:
		return permanent(server, "this user may not do that: %s; see the permissions in deploy/rabbitmq", a.Reason)
	case a.Code == amqp091.NotFound && strings.Contains(a.Reason, versionMark):
		return permanent(server, "its vhost has no topology that this version knows (no exchange %s): run `mirrorbus amqp init` of this version", versionMark)
	case a.Code == amqp091.NotFound && strings.Contains(a.Reason, "no queue"), a.Code == amqp091.NotFound && strings.Contains(a.Reason, "no exchange"):
		return permanent(server, "part of the topology is missing: %s; run `mirrorbus amqp init`", a.Reason)
	case a.Code == amqp091.PreconditionFailed && strings.Contains(a.Reason, "invalid arg 'x-stream-offset'"):
		return permanent(server, "a queue is not a stream and must be one: %s; delete it and run `mirrorbus amqp init`", a.Reason)
	case a.Code == amqp091.PreconditionFailed && strings.Contains(a.Reason, "invalid arg 'x-priority'"):
		return permanent(server, "a queue is a stream and must be none: %s; delete it and run `mirrorbus amqp init`, with --inbox if it is a mirror's own", a.Reason)
	case a.Code == amqp091.PreconditionFailed && strings.Contains(a.Reason, "user_id"):
		return permanent(server, "the user that is configured is not the one that is logged in: %s", a.Reason)
	}
	return fmt.Errorf("broker %s: %w", server, a)
}
