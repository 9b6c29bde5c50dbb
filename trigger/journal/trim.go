package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// A Retention says how much of a journal stays. The newest entry always does, and so does all that follows the exported manifest's serial.
type Retention struct {
	Count int   // announcements; 0: no limit
	Bytes int64 // of lines and path sets; 0: no limit
}

// Trim drops the oldest announcements of a module as far as keep allows, and returns the oldest serial that is left.
func (j *Journal) Trim(ctx context.Context, m event.Module, keep Retention) (event.Serial, error) {
	var floor event.Serial
	err := sqlite.Tx(ctx, j.db, func(tx *sql.Tx) error {
		st, err := state(ctx, tx, m)
		if err != nil {
			return err
		}
		if floor, err = keep.floor(ctx, tx, st); err != nil || floor == st.Floor {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM entry WHERE module = ? AND epoch = ? AND serial < ?", m, st.Epoch, floor); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "UPDATE module SET floor = ? WHERE module = ?", floor, m)
		return err
	})
	return floor, wrap(err, "trim module %s", m)
}

func (keep Retention) floor(ctx context.Context, tx *sql.Tx, st State) (event.Serial, error) {
	floor := st.Floor
	if keep.Count > 0 && st.Serial > event.Serial(keep.Count) {
		floor = max(floor, st.Serial-event.Serial(keep.Count)+1)
	}
	if keep.Bytes > 0 {
		var n sql.Null[event.Serial]
		err := tx.QueryRowContext(ctx, `SELECT max(serial) FROM (SELECT serial, sum(size) OVER (ORDER BY serial DESC) AS total FROM entry
			WHERE module = ? AND epoch = ?) WHERE total > ?`, st.Module, st.Epoch, keep.Bytes).Scan(&n)
		if err != nil {
			return 0, err
		}
		floor = max(floor, n.V+1)
	}
	if !st.Manifest.IsZero() {
		floor = min(floor, max(st.ManifestSerial, 1))
	}
	return max(st.Floor, min(floor, max(st.Serial, 1))), nil
}

// setManifest notes which manifest the next head is to name.
func (j *Journal) setManifest(ctx context.Context, m event.Module, epoch event.Epoch, serial event.Serial, index event.Digest) error {
	done, err := j.db.ExecContext(ctx, "UPDATE module SET manifest = ?, manifest_serial = ?, manifest_at = ? WHERE module = ? AND epoch = ?",
		index[:], serial, j.o.Now().Unix(), m, epoch)
	if err == nil {
		var n int64
		if n, err = done.RowsAffected(); err == nil && n == 0 {
			err = ErrOtherEpoch
		}
	}
	return wrap(err, "note the manifest of module %s", m)
}

// markRestored stops the current epoch of a module for good.
func (j *Journal) markRestored(ctx context.Context, m event.Module, why string) error {
	_, err := j.db.ExecContext(ctx, "UPDATE module SET restored = ? WHERE module = ?", why, m)
	return errors.Join(restored(m, why), wrap(err, "stop module %s", m))
}

func restored(m event.Module, why string) error {
	return fault.With(fmt.Errorf("module %s: %w: %s", m, ErrRestored, why), fault.Config,
		"it was restored from a backup, and would give out serials again that mirrors have seen; move "+DatabaseName+
			" out of the state folder and start the hub: it begins a new epoch, and mirrors compare what they have with the manifest once")
}
