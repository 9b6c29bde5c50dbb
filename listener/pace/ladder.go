package pace

import (
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/mirrorbus/mirrorbus/event"
)

// A Rung is one of the ways in which a mirror that has missed something catches up.
type Rung string

// The rungs. An rsync of everything is the last: it costs the upstream a walk of all that it has, brings indexes with no regard to what they name, and
// says nothing of renames. So it is taken only where neither of the others is there, whatever they cost.
const (
	ByJournal  Rung = "journal"  // each announcement, as if it had been heard
	ByManifest Rung = "manifest" // what the manifest says was touched since, or how the tree differs from it
	ByFull     Rung = "full"     // everything
)

// A Distance is how far a mirror is behind its upstream, as far as that is known before it is fetched. Sizes are measured: those of announcements
// on the first of them, those of the manifest in its index.
type Distance struct {
	Missed event.Serial // announcements that are not here
	Each   float64      // bytes of one of them in the journal, on the average
	Gone   bool         // the journal no longer has them all, or cannot be read

	Manifest bool         // the upstream has one, and the rate of such work allows it now
	Fetch    int64        // bytes of it that are not here
	After    event.Serial // announcements after it, which are read from the journal
	Names    int64        // in the module
	Near     bool         // it knows what was touched since this mirror's serial, so that the tree need not be looked through
}

// What it costs, in bytes on the wire or what takes as long as to send them, at some 10 MB a second.
const (
	entryCost = 1500 // an announcement beside its own bytes: a name in rsync's lists, a signature to be checked, a transaction
	nameCost  = 50   // a name of the tree that is looked at and compared
)

// Cheapest tells which rung to take, and why, in words for people.
func (d Distance) Cheapest() (Rung, string) {
	journal, manifest := d.journal(d.Missed), d.manifest()
	switch {
	case d.Gone && d.Manifest:
		return ByManifest, "by manifest, as the journal does not have what is missing"
	case d.Gone:
		return ByFull, "by an rsync of everything: there is no manifest, and the journal does not have what is missing"
	case d.Manifest && manifest < journal:
		return ByManifest, fmt.Sprintf("by manifest: %s instead of %s journal entries, about %s", size(float64(d.Fetch)), humanize.Comma(int64(d.Missed)), size(float64(d.Missed)*d.Each))
	case d.Manifest:
		return ByJournal, fmt.Sprintf("by journal: %s entries, about %s, instead of %s of the manifest", humanize.Comma(int64(d.Missed)), size(float64(d.Missed)*d.Each), size(float64(d.Fetch)))
	}
	return ByJournal, fmt.Sprintf("by journal: %s entries, about %s", humanize.Comma(int64(d.Missed)), size(float64(d.Missed)*d.Each))
}

func (d Distance) journal(n event.Serial) float64 { return float64(n) * (d.Each + entryCost) }

func (d Distance) manifest() float64 {
	cost := float64(d.Fetch) + d.journal(d.After)
	if !d.Near {
		cost += float64(d.Names) * nameCost
	}
	return cost
}

func size(bytes float64) string { return humanize.IBytes(uint64(max(bytes, 0))) }
