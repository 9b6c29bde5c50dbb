package manifest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/mirrorbus/mirrorbus/event"
)

// An arrival is a directory that the manifest does not have, and what is in it.
type arrival struct {
	top     event.Record
	fresh   bool           // nothing of another type was there before
	records []event.Record // of what is below
	whole   bool           // these were too many to hold
	first   int            // entries right in it
	tally   tally          // of everything below
}

// all are the records that announce it.
func (a *arrival) all() []event.Record {
	if a.whole {
		a.top.Op = event.Tree
	}
	return append([]event.Record{a.top}, a.records...)
}

// arrive takes in one directory of an arrival.
func (c *comparer) arrive(a *arrival, l listing) {
	if l.dir == a.top.Path {
		a.first = len(l.inodes)
	}
	for _, i := range l.inodes {
		c.d.Found.Added++
		a.tally.add(nameIn(a.top.Path, i.Path), i.Record)
		if !a.whole {
			a.records = append(a.records, i.Record)
			c.held++
		}
		if c.enters(i) {
			c.inside[i.Path] = a
		}
	}
}

// A tally is a sum over entries that does not depend on their order.
type tally struct {
	entries int64
	sum     [4]uint64
}

// add takes an entry in: its name below the directory, and what a rename of that leaves as it is.
func (t *tally) add(name string, r event.Record) {
	text := name + "\x00" + strconv.FormatUint(uint64(r.Mode), 8)
	if !r.IsDir() {
		text += fmt.Sprintf(" %d %s", r.Size, r.MTime)
	}
	digest := sha256.Sum256([]byte(text))
	for n := range t.sum {
		t.sum[n] += binary.BigEndian.Uint64(digest[8*n:])
	}
	t.entries++
}

// worthRenaming is how many entries a directory must hold for a rename to be worth its record: with fewer it costs no less than to fetch them.
const worthRenaming = 3

// rename finds the arrivals that are what departed, under another name. Where several look the same, nobody knows which is which, and none is one.
func (c *comparer) rename(ctx context.Context) error {
	came := map[tally][]*arrival{}
	firsts := map[int]bool{}
	for _, a := range c.arrivals {
		if a.fresh && a.tally.entries >= worthRenaming {
			came[a.tally] = append(came[a.tally], a)
			firsts[a.first] = true
		}
	}
	if len(came) == 0 {
		return nil
	}
	went := map[tally][]event.Record{}
	for _, d := range c.departed {
		n, err := c.m.children(ctx, d.Path)
		if err != nil {
			return err
		}
		if !firsts[n] {
			continue
		}
		t, err := c.m.tallyBelow(ctx, d.Path)
		if err != nil {
			return err
		}
		went[t] = append(went[t], d)
	}
	for t, from := range went {
		if to := came[t]; len(from) == 1 && len(to) == 1 {
			c.renamed(from[0].Path, to[0])
		}
	}
	return nil
}

// renamed puts one record in the place of what was said of both names.
func (c *comparer) renamed(from string, a *arrival) {
	r := a.top
	r.Op, r.From = event.Renamed, from
	if r.Check() != nil { // what departed may be announced by a directory above it by now
		return
	}
	i := slices.IndexFunc(c.records, func(r event.Record) bool { return r.Op == event.Gone && r.Path == from })
	if i < 0 {
		return
	}
	c.records[i] = r
	c.arrivals = slices.DeleteFunc(c.arrivals, func(other *arrival) bool { return other == a })
	c.d.Found.Added -= a.tally.entries + 1
	c.d.Found.Removed--
	c.d.Found.Renamed++
}

// children is how many names the manifest has right in a directory.
func (m *Manifest) children(ctx context.Context, dir string) (n int, err error) {
	err = m.look.QueryRowContext(ctx, "SELECT count(*) FROM entry WHERE dir = (SELECT dir FROM dir WHERE path = ?) AND mode <> 0", []byte(dir)).Scan(&n)
	return n, err
}

// tallyBelow sums up what the manifest has below a directory.
func (m *Manifest) tallyBelow(ctx context.Context, dir string) (t tally, err error) {
	for r, e := range m.from(ctx, dir+"/", after(dir)) {
		if err = errors.Join(e, ctx.Err()); err != nil {
			return t, err
		}
		if r.Op != event.Gone {
			t.add(nameIn(dir, r.Path), r)
		}
	}
	return t, nil
}
