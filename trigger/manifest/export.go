package manifest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
)

// Export writes the manifest as it stands into an export folder, only the shards in whose range something changed since the last time, and returns
// its index and the digest that the next head is to name. previous is the one that the head names now, zero if none.
func (m *Manifest) Export(ctx context.Context, w *export.Writer, previous event.Digest) (export.Index, event.Digest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ix, err := m.export(ctx, w)
	if err != nil {
		return export.Index{}, event.Digest{}, m.named(fmt.Errorf("export manifest of %s: %w", m.module, err))
	}
	d, err := w.PutManifest(ix, previous, func(s export.Shard) ([]byte, error) { return m.again(ctx, ix, s) })
	return ix, d, err
}

func (m *Manifest) export(ctx context.Context, w *export.Writer) (export.Index, error) {
	pos, err := m.Position(ctx)
	if err != nil {
		return export.Index{}, err
	}
	old, err := m.shards(ctx)
	if err != nil {
		return export.Index{}, err
	}
	var all []shardRow
	for i := 0; i < len(old); {
		if !old[i].dirty {
			all = append(all, old[i])
			i++
			continue
		}
		from := old[i].start
		for i < len(old) && old[i].dirty {
			i++
		}
		end := ""
		if i < len(old) {
			end = old[i].start
		}
		cut, err := m.cut(ctx, w, from, end)
		if err != nil {
			return export.Index{}, err
		}
		all = append(all, cut...)
	}
	if err := m.saveShards(ctx, all); err != nil {
		return export.Index{}, err
	}
	return m.index(pos, all), nil
}

func (m *Manifest) index(pos Position, rows []shardRow) export.Index {
	ix := export.Index{Module: m.module, Epoch: pos.Epoch, Serial: pos.Serial, Floor: pos.Floor}
	for _, r := range rows {
		ix.Shards = append(ix.Shards, r.Shard)
		ix.Entries += r.Entries
		ix.Bytes += r.content
	}
	return ix
}

// shardRow is a row of shard.
type shardRow struct {
	export.Shard
	start   string
	content int64 // bytes of what is there
	dirty   bool
}

func (m *Manifest) shards(ctx context.Context) (all []shardRow, err error) {
	rows, err := m.db.QueryContext(ctx, "SELECT start, first, digest, entries, bytes, content, dirty FROM shard ORDER BY start")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r shardRow
		var digest []byte
		if err := rows.Scan(&r.start, &r.First, &digest, &r.Entries, &r.Bytes, &r.content, &r.dirty); err != nil {
			return nil, err
		}
		copy(r.Digest[:], digest)
		all = append(all, r)
	}
	return all, rows.Err()
}

// saveShards notes what is exported now. Even of an empty manifest one row stays, so that what comes is noticed.
func (m *Manifest) saveShards(ctx context.Context, all []shardRow) error {
	if len(all) == 0 {
		all = []shardRow{{dirty: true}}
	}
	return sqlite.Tx(ctx, m.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM shard"); err != nil {
			return err
		}
		for i, r := range all {
			if i == 0 {
				r.start = ""
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO shard (start, first, digest, entries, bytes, content, dirty) VALUES (?, ?, ?, ?, ?, ?, ?)",
				[]byte(r.start), []byte(r.First), r.Digest[:], r.Entries, r.Bytes, r.content, r.dirty)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// cut makes and writes the shards of the paths from first up to but not including last ("" for no end).
func (m *Manifest) cut(ctx context.Context, w *export.Writer, first, last string) ([]shardRow, error) {
	var rows []shardRow
	var part []event.Record
	size := 0
	flush := func() error {
		if len(part) == 0 {
			return nil
		}
		row := shardRow{start: part[0].Path}
		for _, r := range part {
			row.content += r.Size
		}
		var b []byte
		row.Shard, b = export.EncodeShard(part)
		rows, part, size = append(rows, row), part[:0], 0
		failpoint.Here("export.shard")
		return w.PutShard(row.Shard, b)
	}
	for r, err := range m.from(ctx, first, last) {
		if err == nil && m.boundary(r.Path, len(part), size) {
			err = flush()
		}
		if err != nil {
			return nil, err
		}
		part = append(part, r)
		size += len(r.Path) + len(strconv.FormatInt(r.Size, 10)) + 64
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		rows[0].start = first
	}
	return rows, nil
}

// maxShardText bounds the text of a shard in bytes.
const maxShardText = 64 << 20

// boundary tells whether a shard begins with path. That depends on the path alone wherever possible: then a change dirties the shard it is in and no other,
// and a manifest that is built anew has the same boundaries.
func (m *Manifest) boundary(path string, entries, size int) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(path)) // never fails
	sum := h.Sum64()
	return (sum^sum>>32)&uint64(m.o.ShardEntries-1) == 0 || entries >= 4*m.o.ShardEntries || size >= maxShardText
}

// again makes the file of a clean shard once more, because it is missing from the export folder.
func (m *Manifest) again(ctx context.Context, ix export.Index, s export.Shard) ([]byte, error) {
	last := ""
	for i := range ix.Shards {
		if ix.Shards[i].First == s.First && i+1 < len(ix.Shards) {
			last = ix.Shards[i+1].First
		}
	}
	var part []event.Record
	for r, err := range m.from(ctx, s.First, last) {
		if err != nil {
			return nil, err
		}
		part = append(part, r)
	}
	if len(part) == 0 {
		return nil, fmt.Errorf("manifest shard %s: nothing is left of it; build the manifest again", s.Digest)
	}
	_, b := export.EncodeShard(part)
	return b, nil
}
