package export

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/envelope"
)

// EncodeShard makes the file of a shard of records, which must be sorted by path and not empty. The same records give the same bytes.
func EncodeShard(records []event.Record) (Shard, []byte) {
	b := envelope.Compress(event.PathSet(records).Encode())
	return Shard{Digest: event.Sum(b), Entries: int64(len(records)), Bytes: int64(len(b)), First: records[0].Path}, b
}

// maxRecord bounds one encoded record in bytes, its NUL included: the path and the fields before it.
const maxRecord = event.MaxPath + 256

// DecodeShard yields the records of a shard file that has the digest it should have. It holds one record at a time.
func DecodeShard(b []byte, want Shard) iter.Seq2[event.Record, error] {
	return func(yield func(event.Record, error) bool) {
		if err := decodeRecords(b, want, func(r event.Record) bool { return yield(r, nil) }); err != nil {
			yield(event.Record{}, fmt.Errorf("manifest shard %s: %w", want.Digest, err))
		}
	}
}

func decodeRecords(b []byte, want Shard, yield func(event.Record) bool) error {
	if got := event.Sum(b); got != want.Digest {
		return fmt.Errorf("%w: its digest is %s", event.ErrFormat, got)
	}
	z, err := envelope.NewReader(b, maxShardText)
	if err != nil {
		return err
	}
	defer z.Close()
	in := bufio.NewReaderSize(z, maxRecord)
	last := ""
	for n := int64(0); ; n++ {
		r, err := nextRecord(in)
		switch {
		case errors.Is(err, io.EOF):
			return sameCount(n, want.Entries)
		case err != nil:
			return fmt.Errorf("record %d: %w", n+1, err)
		case n == 0 && r.Path != want.First:
			return fmt.Errorf("%w: begins with path %.200q, not with %.200q", event.ErrFormat, r.Path, want.First)
		case r.Path <= last:
			return fmt.Errorf("%w: path %.200q is out of order", event.ErrFormat, r.Path)
		case n == want.Entries:
			return sameCount(n+1, want.Entries)
		}
		if last = r.Path; !yield(r) {
			return nil
		}
	}
}

func sameCount(n, want int64) error {
	if n != want {
		return fmt.Errorf("%w: %d records or more, the index says %d", event.ErrFormat, n, want)
	}
	return nil
}

// nextRecord reads one record, or io.EOF where one could begin.
func nextRecord(in *bufio.Reader) (event.Record, error) {
	b, err := in.ReadSlice(0)
	switch {
	case errors.Is(err, io.EOF) && len(b) == 0:
		return event.Record{}, io.EOF
	case errors.Is(err, io.EOF):
		return event.Record{}, fmt.Errorf("%w: cut short", event.ErrFormat)
	case errors.Is(err, bufio.ErrBufferFull):
		return event.Record{}, fmt.Errorf("%w: longer than %d bytes", event.ErrFormat, maxRecord)
	case err != nil:
		return event.Record{}, err
	}
	return decodeRecord(b)
}

func decodeRecord(b []byte) (event.Record, error) {
	set, err := event.DecodePathSet(bytes.Clone(b))
	if err != nil {
		return event.Record{}, err
	}
	r := set[0]
	if r.Op != event.Write && r.Op != event.Gone {
		return event.Record{}, fmt.Errorf("%w: path %.200q: op %c in a manifest", event.ErrFormat, r.Path, r.Op)
	}
	return r, nil
}

// Shard yields the records of one shard of an index, in order of their paths.
func (r *Reader) Shard(s Shard) iter.Seq2[event.Record, error] {
	return func(yield func(event.Record, error) bool) {
		b, err := readFile(r.root, ShardFile(s.Digest), MaxShard)
		if err != nil {
			yield(event.Record{}, err)
			return
		}
		DecodeShard(b, s)(yield)
	}
}
