package journal

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// Errors about composes.
var (
	ErrComposing = errors.New("a compose is under way")
	ErrNoCompose = errors.New("no compose is under way")
	ErrGathered  = errors.New("more was gathered meanwhile")
)

// A Compose is a change of a module that is not made at one stroke. From its beginning to its end heads ask mirrors to leave the half-made tree alone,
// changes are not announced but gathered, and what was gathered is announced once, at the end. Flips are announced as ever.
type Compose struct {
	Module event.Module
	Began  time.Time
	Until  time.Time // it ends by itself then
	Who    string    // began it, for people
	Note   string    // likewise
	Names  int       // gathered

	Ended   Ending    // "" while it is under way
	EndedAt time.Time // zero likewise

	gathers int64 // counts what changes the gathered names
}

// An Ending is how a compose ended.
type Ending string

// The endings.
const (
	Committed Ending = "committed"
	Aborted   Ending = "aborted"
	Overran   Ending = "overran" // its time was over
)

// A Gathered is a name that waits for the end of a compose.
type Gathered struct {
	Op   event.Op // 0: as it is then, a directory with everything below it
	Path string
	From string // Renamed only
}

// compositions are the tables of composes. No head is signed for an earlier time than changed: so of two heads of one serial the one that says what is
// true now is the newer, also if both were signed in one second.
func compositions() sqlite.Component {
	return sqlite.Component{Name: "compose", Steps: []string{`
CREATE TABLE compose (
	module   TEXT PRIMARY KEY REFERENCES module(module),
	began    INTEGER NOT NULL, -- milliseconds since 1970, as the next one
	until    INTEGER NOT NULL,
	who      TEXT NOT NULL,
	note     TEXT NOT NULL,
	gathers  INTEGER NOT NULL, -- counts what changes the gathered names
	ended    TEXT NOT NULL DEFAULT '', -- how, '' while it is under way
	ended_at INTEGER NOT NULL DEFAULT 0, -- milliseconds since 1970
	changed  INTEGER NOT NULL -- Unix time
) STRICT, WITHOUT ROWID;
CREATE TABLE gathered (
	module TEXT NOT NULL REFERENCES compose(module),
	path   BLOB NOT NULL,
	op     TEXT NOT NULL, -- '' for as it is
	came   BLOB NOT NULL, -- the old name of a renamed directory
	PRIMARY KEY (module, path)
) STRICT, WITHOUT ROWID;
`}}
}

const composeColumns = "module, began, until, who, note, gathers, ended, ended_at, (SELECT count(*) FROM gathered WHERE gathered.module = compose.module)"

// compose reads the newest compose of a module. Where there never was one it has no Began, and counts as committed.
func compose(ctx context.Context, q querier, m event.Module) (Compose, error) {
	var c Compose
	var began, until, ended int64
	err := q.QueryRowContext(ctx, "SELECT "+composeColumns+" FROM compose WHERE module = ?", m).
		Scan(&c.Module, &began, &until, &c.Who, &c.Note, &c.gathers, &c.Ended, &ended, &c.Names)
	if errors.Is(err, sql.ErrNoRows) {
		return Compose{Module: m, Ended: Committed}, nil
	}
	c.Began, c.Until = time.UnixMilli(began).UTC(), time.UnixMilli(until).UTC()
	if ended != 0 {
		c.EndedAt = time.UnixMilli(ended).UTC()
	}
	return c, err
}

// Compose is the compose of a module that is under way, or else the last one; without a Began if there never was one.
func (j *Journal) Compose(ctx context.Context, m event.Module) (Compose, error) {
	c, err := compose(ctx, j.db, m)
	return c, wrap(err, "compose of module %s", m)
}

// BeginCompose begins a compose: heads ask mirrors to wait from now on. If one is under way the error Is ErrComposing, and that one is returned.
func (j *Journal) BeginCompose(ctx context.Context, c Compose) (under Compose, err error) {
	err = sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		st, err := state(ctx, tx, c.Module)
		if err != nil {
			return err
		}
		if st.Restored != "" {
			return restored(c.Module, st.Restored)
		}
		if under, err = compose(ctx, tx, c.Module); err != nil {
			return err
		}
		if under.Ended == "" {
			return ErrComposing
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO compose (module, began, until, who, note, gathers, changed) VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6 + 1)
			ON CONFLICT (module) DO UPDATE SET began = ?2, until = ?3, who = ?4, note = ?5, ended = '', ended_at = 0, changed = max(changed, ?6) + 1`,
			c.Module, c.Began.UnixMilli(), c.Until.UnixMilli(), c.Who, c.Note, c.Began.Unix())
		if err == nil {
			under, err = compose(ctx, tx, c.Module)
		}
		return err
	})
	return under, wrap(err, "begin a compose of module %s", c.Module)
}

// ExtendCompose sets until when the compose under way lasts at most. The error Is ErrNoCompose if none is.
func (j *Journal) ExtendCompose(ctx context.Context, m event.Module, until, now time.Time) (c Compose, err error) {
	err = sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		if err := underWay(ctx, tx, m); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE compose SET until = ?, changed = max(changed, ?) + 1 WHERE module = ?", until.UnixMilli(), now.Unix(), m)
		if err == nil {
			c, err = compose(ctx, tx, m)
		}
		return err
	})
	return c, wrap(err, "extend the compose of module %s", m)
}

// underWay is nil if a compose of the module is, else ErrNoCompose.
func underWay(ctx context.Context, tx *sql.Tx, m event.Module) error {
	var open bool
	err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM compose WHERE module = ? AND ended = '')", m).Scan(&open)
	if err == nil && !open {
		err = ErrNoCompose
	}
	return err
}

// Gather keeps names for the end of the compose that is under way: when it returns nil they are durable. The error Is ErrNoCompose if none is. Where two
// do not say the same of a path it is announced as it is then, with everything below it.
func (j *Journal) Gather(ctx context.Context, m event.Module, names []Gathered) error {
	err := sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		if err := underWay(ctx, tx, m); err != nil {
			return err
		}
		insert, err := tx.PrepareContext(ctx, `INSERT INTO gathered (module, path, op, came) VALUES (?, ?, ?, ?)
			ON CONFLICT (module, path) DO UPDATE SET op = '', came = x'' WHERE op <> excluded.op OR came <> excluded.came`)
		if err != nil {
			return err
		}
		defer insert.Close() //nolint:errcheck // the transaction ends with it
		for _, n := range names {
			op := ""
			if n.Op != 0 {
				op = string(rune(n.Op))
			}
			if _, err := insert.ExecContext(ctx, m, []byte(n.Path), op, []byte(n.From)); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE compose SET gathers = gathers + 1 WHERE module = ?", m)
		return err
	})
	return wrap(err, "gather for the compose of module %s", m)
}

// Gathered returns the compose that is under way with the names that it has gathered, by path. The error Is ErrNoCompose if none is.
func (j *Journal) Gathered(ctx context.Context, m event.Module) (c Compose, names []Gathered, err error) {
	err = sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		if err := underWay(ctx, tx, m); err != nil {
			return err
		}
		if c, err = compose(ctx, tx, m); err != nil {
			return err
		}
		names, err = gathered(ctx, tx, m)
		return err
	})
	return c, names, wrap(err, "compose of module %s", m)
}

func gathered(ctx context.Context, tx *sql.Tx, m event.Module) (names []Gathered, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT path, op, came FROM gathered WHERE module = ? ORDER BY path", m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var path, came []byte
		var op string
		if err := rows.Scan(&path, &op, &came); err != nil {
			return nil, err
		}
		n := Gathered{Path: string(path), From: string(came)}
		if op != "" {
			n.Op = event.Op(op[0])
		}
		names = append(names, n)
	}
	return names, rows.Err()
}

// EndCompose ends a compose, as Gathered has returned it, that has nothing to announce. To announce something is an Entry that Ends it.
func (j *Journal) EndCompose(ctx context.Context, c Compose, how Ending) error {
	err := sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error { return c.end(ctx, tx, how, j.o.Now()) })
	return wrap(err, "end the compose of module %s", c.Module)
}

// end ends the compose if it is the one under way and no more was gathered for it.
func (c Compose) end(ctx context.Context, tx *sql.Tx, how Ending, now time.Time) error {
	under, err := compose(ctx, tx, c.Module)
	switch {
	case err != nil:
		return err
	case under.Ended != "":
		return ErrNoCompose
	case !under.Began.Equal(c.Began) || under.gathers != c.gathers:
		return ErrGathered
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM gathered WHERE module = ?", c.Module); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE compose SET ended = ?, ended_at = ?, changed = max(changed, ?) + 1 WHERE module = ?", how, now.UnixMilli(), now.Unix(), c.Module)
	return err
}

// admit tells whether an entry may be announced now. While a compose is under way a change may only be what ends it.
func (e Entry) admit(ctx context.Context, tx *sql.Tx, now time.Time) error {
	if e.Ends != nil {
		return e.Ends.Compose.end(ctx, tx, e.Ends.How, now)
	}
	if e.Kind == event.Flip {
		return nil
	}
	err := underWay(ctx, tx, e.Module)
	switch {
	case err == nil:
		return ErrComposing
	case errors.Is(err, ErrNoCompose):
		return nil
	}
	return err
}

// An End says that an entry is what a compose has gathered.
type End struct {
	Compose Compose // as Gathered returned it
	How     Ending
}

// hold is for how long a head signed at a time asks mirrors to wait; 0 if for no time.
func (st State) hold(at time.Time) time.Duration {
	return max(min(st.Hold.Sub(at), event.MaxHold).Truncate(time.Second), 0)
}

// mostAhead is how far a head may be signed ahead of the clock. One that was set back must not make heads of the future for long.
const mostAhead = time.Minute

// signedAt is the time for which a head is signed now: whole seconds, and none from before what it says was changed.
func (st State) signedAt(now time.Time) time.Time {
	now = now.UTC().Truncate(time.Second)
	if ahead := st.Changed.Sub(now); ahead > 0 && ahead <= mostAhead {
		return st.Changed.UTC()
	}
	return now
}

// ttl is for how long a head holds, of which the configuration says how long it should.
func (st State) ttl(configured, hold time.Duration) time.Duration {
	if hold > 0 {
		configured = min(configured, event.MaxHold)
	}
	return configured.Truncate(time.Second)
}

// says tells whether an exported head says of a compose what one that is signed now would.
func (st State) says(old event.Head, now time.Time) bool {
	at := st.signedAt(now)
	hold := st.hold(at)
	if hold == 0 || old.Hold == 0 {
		return hold == 0 && old.Hold == 0
	}
	return hold == event.MaxHold && old.Hold == event.MaxHold || old.At.Add(old.Hold).Equal(at.Add(hold))
}
