package deploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/all"
)

// TRANSPORTS.md has a column for each transport, and says of each what its capabilities say.
func TestTransportsAreAsTheyAre(t *testing.T) {
	rows := map[string][]string{}
	var head []string
	for line := range strings.Lines(read(t, "TRANSPORTS.md")) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if head == nil {
			head = cells
		} else if len(cells) != len(head) {
			t.Errorf("a row of %d cells, want %d: %s", len(cells), len(head), line)
		}
		rows[cells[0]] = cells[1:]
	}
	for _, d := range all.Registry() {
		at := slices.Index(head, d.Name) - 1
		if at < 0 {
			t.Errorf("%s has no column", d.Name)
			continue
		}
		can := d.Capabilities(transports.Mirror)
		order, again, back := "not kept", "no", "never"
		if can.Ordered {
			order = "kept"
		}
		if can.Redelivers {
			again = "yes"
		}
		if can.Resumes {
			back = "from the journal"
		} else if can.Durable {
			back = "from the "
		}
		for row, want := range map[string]string{
			"order of one module's announcements": order, "largest message, bytes": fmt.Sprint(can.MaxBody),
			"one that could not be stored is brought again": again, "a mirror that was away gets it": back,
		} {
			if cells := rows[row]; at >= len(cells) || !strings.HasPrefix(cells[at], want) {
				t.Errorf("%s, %s: it should begin with %q, it is %q", d.Name, row, want, cells)
			}
		}
	}
}
