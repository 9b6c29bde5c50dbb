package trigger

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/bookmark"
	"github.com/mirrorbus/mirrorbus/transports/outbox"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
	"github.com/mirrorbus/mirrorbus/trigger/journal"
)

// Parts are what a master's process has open.
type Parts struct {
	Signer    ssh.Signer
	Trust     *signers.Store
	Journal   *journal.Journal
	Collector *collector.Collector
	exports   map[event.Module]*exported
}

// lockWait is how long a process waits for the state folder: a command without a hub has it for milliseconds, a hub that ends for seconds.
const lockWait = 10 * time.Second

// OpenParts opens the databases and keys that a configuration names, and makes the modules that are new. Only one process can have them open.
func OpenParts(ctx context.Context, conf *Config, log *slog.Logger) (*Parts, error) {
	var p Parts
	var err error
	if p.Signer, p.Trust, err = conf.Open(); err != nil {
		return nil, err
	}
	p.Journal, err = journal.Open(ctx, string(conf.State), journal.Options{
		Signer: p.Signer, Schema: []sqlite.Component{outbox.Schema(), bookmark.Schema(), obeyed()}, LockWait: lockWait,
		Outbox: func(ctx context.Context, tx *sql.Tx, a journal.Appended) error {
			return send(ctx, tx, a, conf.Transport.Names())
		},
	})
	if err != nil {
		return nil, err
	}
	if p.Collector, err = collector.Open(ctx, string(conf.State)); err != nil {
		return nil, errors.Join(err, p.Journal.Close())
	}
	for _, m := range conf.Modules {
		if _, err := p.Journal.CreateModule(ctx, event.Module(m.Name)); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	if p.exports, err = openExports(ctx, conf, p.Journal); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &p, nil
}

// send puts an announcement into the outbox of every transport: with its path set, and alone for those that cannot carry it.
func send(ctx context.Context, tx *sql.Tx, a journal.Appended, transportNames []string) error {
	t := transports.Topic{Kind: transports.Announce, Module: string(a.Announcement.Module)}
	m := message(t, announcementID(a.Announcement.Epoch, a.Announcement.Serial), a.Body())
	return outbox.Put(ctx, tx, outbox.Entry{Message: m, Short: a.Line}, transportNames)
}

// Close closes what is open.
func (p *Parts) Close() error {
	return errors.Join(closeExports(p.exports), p.Collector.Close(), p.Journal.Close())
}

// alone runs f with a publisher while no hub runs.
func alone(ctx context.Context, conf *Config, log *slog.Logger, f func(*Parts, *Publisher) error) (err error) {
	p, err := OpenParts(ctx, conf, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return f(p, &Publisher{Journal: p.Journal, Modules: conf.Modules, Now: time.Now, exports: p.exports})
}

// PublishAlone announces while no hub runs: durably, and relayed when one starts.
func PublishAlone(ctx context.Context, conf *Config, r Request, log *slog.Logger) (done Published, err error) {
	err = alone(ctx, conf, log, func(parts *Parts, p *Publisher) (err error) {
		if err := endOverdue(ctx, p, r.Module, log); err != nil {
			return err
		}
		done, err = parts.publish(ctx, p, r, log)
		return err
	})
	return done, err
}

// publish announces and exports.
func (p *Parts) publish(ctx context.Context, by *Publisher, r Request, log *slog.Logger) (Published, error) {
	done, err := by.Publish(ctx, r)
	if err != nil || done.Serial == 0 {
		return done, err
	}
	if err := p.exports[r.Module].exporter.Advance(ctx); err != nil {
		log.Error("export", "module", r.Module, "error", err) // it is journalled; the hub exports it when it starts
	}
	return done, nil
}

// ScanAlone scans while no hub runs; send is told how far it is.
func ScanAlone(ctx context.Context, conf *Config, r ScanRequest, log *slog.Logger, send func(Scanned) error) error {
	return alone(ctx, conf, log, func(parts *Parts, p *Publisher) error {
		_, err := p.scan(ctx, r, send, func(ctx context.Context, r Request) (Published, error) { return parts.publish(ctx, p, r, log) })
		return err
	})
}

// LogAlone lists announcements while no hub runs.
func LogAlone(ctx context.Context, conf *Config, m event.Module, n int, log *slog.Logger) (entries []LogEntry, err error) {
	err = alone(ctx, conf, log, func(_ *Parts, p *Publisher) (err error) {
		entries, err = p.Log(ctx, m, n)
		return err
	})
	return entries, err
}

// StatusAlone says where everything stands while no hub runs.
func StatusAlone(ctx context.Context, conf *Config, log *slog.Logger) (s Status, err error) {
	err = alone(ctx, conf, log, func(p *Parts, _ *Publisher) (err error) {
		s, err = NewHub(conf, p, log).Status(ctx)
		s.Running = false
		return err
	})
	return s, err
}

// ForgetAlone drops a mirror while no hub runs.
func ForgetAlone(ctx context.Context, conf *Config, mirror string) error {
	return alone(ctx, conf, slog.New(slog.DiscardHandler), func(p *Parts, _ *Publisher) error { return forget(ctx, p.Collector, mirror) })
}
