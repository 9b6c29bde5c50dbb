package trigger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A CommanderConfig lets a principal of the trust file give signed commands.
type CommanderConfig struct {
	Principal string   `toml:"principal"`
	Modules   []string `toml:"modules"` // names, or patterns as of path.Match
}

// Validate checks one commander.
func (g *CommanderConfig) Validate() error {
	if _, err := event.ParsePrincipal(g.Principal); err != nil {
		return config.Fault("principal", err.Error(), "write a principal of the trust file")
	}
	return config.Require("modules", g.Modules)
}

// commandSkew is how far the clock of who signs a command may be ahead of this one.
const commandSkew = 5 * time.Minute

// obeyed is the table of the commands that were obeyed and could still be repeated.
func obeyed() sqlite.Component {
	return sqlite.Component{Name: "obeyed", Steps: []string{`CREATE TABLE obeyed (
	digest  BLOB PRIMARY KEY, -- of the signed text
	expires INTEGER NOT NULL  -- Unix time
) WITHOUT ROWID;`}}
}

var errObeyed = errors.New("this command was obeyed already; sign another one")

// obey does what a signed command says: once, in time, for who may.
func (h *Hub) obey(ctx context.Context, line string) ([]string, error) {
	gate := event.Gate{Trust: h.trust}
	for _, g := range h.conf.Commanders {
		gate.Grants = append(gate.Grants, event.Grant{Principal: g.Principal, Modules: g.Modules, Kinds: []event.Kind{event.Ordered}})
	}
	now := h.now()
	s, err := gate.Open([]byte(line), now)
	if err != nil {
		return nil, err
	}
	c := s.Command
	switch {
	case c == nil:
		return nil, fmt.Errorf("a %s is no command", s.Kind)
	case c.Master != h.conf.Name:
		return nil, &unknownModule{c.Master}
	case c.At.After(now.Add(commandSkew)):
		return nil, fmt.Errorf("this command is of the future (%s): see to the clocks", c.At.Format(time.RFC3339))
	case now.After(c.At.Add(c.TTL)):
		return nil, fmt.Errorf("this command held until %s; sign another one", c.At.Add(c.TTL).Format(time.RFC3339))
	}
	if err := h.once(ctx, s.Digest, c.At.Add(c.TTL), now); err != nil {
		return nil, err
	}
	h.log.Info("command", "module", c.Module, "order", c.Order, "principal", s.Principal)
	a := asked{words: append([]string{string(c.Module)}, c.Paths...), who: s.Principal, inner: true}
	if c.Order == event.FlipNow {
		return h.flip(ctx, a)
	}
	return h.sync(ctx, a)
}

// once notes a command before it is obeyed, for as long as it could be repeated. One that a crash keeps from being obeyed is to be given anew.
func (h *Hub) once(ctx context.Context, d event.Digest, expires, now time.Time) error {
	return sqlite.Tx(ctx, h.journal.DB(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM obeyed WHERE expires < ?", now.Unix()); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO obeyed (digest, expires) VALUES (?, ?)", d[:], expires.Unix())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return errObeyed
	})
}

// isSigned tells whether what somebody says is a signed line, which needs no account.
func isSigned(q transports.Question) bool { return strings.HasPrefix(q.Text, event.Magic+" ") }
