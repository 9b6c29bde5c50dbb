package sim

import (
	"encoding/binary"

	"github.com/mirrorbus/mirrorbus/event"
)

// paths is how many names the simulated module has.
const paths = 24

// A tree is the version of each path, and for what flips do, the serial of the last flip of each.
type tree struct {
	content [paths]int
	flipped [paths]event.Serial
}

// A disk is a mirror's tree: what its processes see, and what would be left of it after a power failure.
type disk struct {
	seen, synced tree
}

func (d *disk) sync() { d.synced = d.seen }

// lose is a power failure. Of what was not synced any part may be left.
func (d *disk) lose(w *World) {
	for p := range paths {
		if d.seen.content[p] != d.synced.content[p] && w.rand.IntN(4) > 0 {
			d.seen.content[p] = d.synced.content[p]
		}
		if d.seen.flipped[p] != d.synced.flipped[p] && w.rand.IntN(4) > 0 {
			d.seen.flipped[p] = d.synced.flipped[p]
		}
	}
	d.sync()
}

// A change is what an announcement says of one path: its version, or for a flip that it is flipped.
type change struct{ path, version int }

// encode is the path set as it travels.
func encode(set []change) []byte {
	var b []byte
	for _, c := range set {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(c.path)), uint64(c.version))
	}
	return append(b, 0)
}

// decode is the inverse of encode.
func decode(b []byte) (set []change) {
	for len(b) > 1 {
		p, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[n:])
		set, b = append(set, change{int(p), int(v)}), b[n+m:]
	}
	return set
}
