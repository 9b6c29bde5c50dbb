package export

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// An Index says what a manifest holds and which shards it is made of.
type Index struct {
	Module  event.Module
	Epoch   event.Epoch
	Serial  event.Serial // the manifest is the state after this announcement
	Floor   event.Serial // tombstones are complete for serials above it
	Entries int64        // records in all shards
	Bytes   int64        // sum of the sizes of what is there, in bytes
	Shards  []Shard      // in order of their paths
}

// A Shard is one piece of a manifest.
type Shard struct {
	Digest  event.Digest // of the file, and its name
	Entries int64
	Bytes   int64  // of the file
	First   string // path of its first record
}

// Encode writes the text of the index.
func (ix Index) Encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s manifest module=%s epoch=%s serial=%d floor=%d entries=%d bytes=%d\n",
		event.Magic, ix.Module, ix.Epoch, ix.Serial, ix.Floor, ix.Entries, ix.Bytes)
	for _, s := range ix.Shards {
		fmt.Fprintf(&b, "shard %s %d %d %s\n", s.Digest, s.Entries, s.Bytes, escape(s.First))
	}
	return b.Bytes()
}

// DecodeIndex reads what Encode writes, and refuses any other form. The error Is event.ErrFormat.
func DecodeIndex(b []byte) (Index, error) {
	ix, err := decodeIndex(b)
	if err == nil && !bytes.Equal(ix.Encode(), b) {
		err = fmt.Errorf("not in canonical form")
	}
	if err == nil {
		err = ix.check()
	}
	if err != nil {
		return Index{}, fmt.Errorf("%w: manifest index: %w", event.ErrFormat, err)
	}
	return ix, nil
}

func decodeIndex(b []byte) (Index, error) {
	var ix Index
	if len(b) > MaxIndex {
		return ix, fmt.Errorf("%d bytes long, at most %d", len(b), MaxIndex)
	}
	head, rest, ok := strings.Cut(string(b), "\n")
	if !ok {
		return ix, fmt.Errorf("cut short")
	}
	if err := ix.decodeHead(head); err != nil {
		return ix, err
	}
	for rest != "" {
		var line string
		if line, rest, ok = strings.Cut(rest, "\n"); !ok {
			return ix, fmt.Errorf("cut short")
		}
		s, err := decodeShard(line)
		if err != nil {
			return ix, fmt.Errorf("shard %d: %w", len(ix.Shards)+1, err)
		}
		ix.Shards = append(ix.Shards, s)
	}
	return ix, nil
}

func (ix *Index) decodeHead(line string) error {
	want := []string{"module", "epoch", "serial", "floor", "entries", "bytes"}
	words := strings.Split(line, " ")
	if len(words) != 2+len(want) || words[0] != event.Magic || words[1] != "manifest" {
		return fmt.Errorf("begins with %.60q, not with %s manifest and %s", line, event.Magic, strings.Join(want, "=, "))
	}
	var v [6]string
	for i, key := range want {
		value, ok := strings.CutPrefix(words[2+i], key+"=")
		if !ok {
			return fmt.Errorf("word %.40q: must be %s=", words[2+i], key)
		}
		v[i] = value
	}
	var errs [6]error
	ix.Module, errs[0] = event.ParseModule(v[0])
	ix.Epoch, errs[1] = event.ParseEpoch(v[1])
	ix.Serial, errs[2] = event.ParseSerial(v[2])
	ix.Floor, errs[3] = event.ParseSerial(v[3])
	ix.Entries, errs[4] = parseNumber(v[4])
	ix.Bytes, errs[5] = parseNumber(v[5])
	return first(errs[:])
}

func decodeShard(line string) (Shard, error) {
	f := strings.Split(line, " ")
	if len(f) != 5 || f[0] != "shard" {
		return Shard{}, fmt.Errorf("%.60q: must be: shard digest entries bytes first-path", line)
	}
	var s Shard
	var errs [4]error
	s.Digest, errs[0] = event.ParseDigest(f[1])
	s.Entries, errs[1] = parseNumber(f[2])
	s.Bytes, errs[2] = parseNumber(f[3])
	s.First, errs[3] = unescape(f[4])
	return s, first(errs[:])
}

// check finds what a well-formed index must still not say.
func (ix Index) check() error {
	var entries int64
	for i, s := range ix.Shards {
		switch {
		case s.Digest.IsZero() || s.Entries == 0 || s.Entries > event.MaxRecords || s.Bytes == 0 || s.Bytes > MaxShard:
			return fmt.Errorf("shard %d: digest, entries or bytes out of range", i+1)
		case event.CheckPath(s.First) != nil:
			return fmt.Errorf("shard %d: %w", i+1, event.CheckPath(s.First))
		case i > 0 && s.First <= ix.Shards[i-1].First:
			return fmt.Errorf("shard %d: path %.200q is out of order", i+1, s.First)
		}
		entries += s.Entries
	}
	switch {
	case entries != ix.Entries:
		return fmt.Errorf("says %d entries, its shards have %d", ix.Entries, entries)
	case ix.Floor > ix.Serial:
		return fmt.Errorf("floor %d lies above serial %d", ix.Floor, ix.Serial)
	}
	return nil
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%.30q: must be a number", s)
	}
	return int64(n), nil
}

// escape writes a path as one word of ASCII.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func unescape(s string) (string, error) {
	if strings.Contains(s, "+") {
		return "", fmt.Errorf("%.40q: a plus sign must be written %%2B", s)
	}
	return url.QueryUnescape(s)
}
