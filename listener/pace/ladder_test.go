package pace

import (
	"strings"
	"testing"
)

func TestTheCheapestWayToCatchUp(t *testing.T) {
	// A manifest of a million names, of which a mirror has none yet, and one that it has but for what has changed.
	whole := Distance{Each: 400, Manifest: true, Fetch: 2 << 20, Names: 1_000_000, Near: true}
	for name, c := range map[string]struct {
		change func(*Distance)
		want   Rung
		says   string
	}{
		"a minute":                            {func(d *Distance) { d.Missed = 1 }, ByJournal, "by journal: 1 entries, about 400 B, instead of 2.0 MiB of the manifest"},
		"a day":                               {func(d *Distance) { d.Missed = 900 }, ByJournal, "by journal: 900 entries"},
		"a year":                              {func(d *Distance) { d.Missed = 9800 }, ByManifest, "by manifest: 2.0 MiB instead of 9,800 journal entries, about 3.7 MiB"},
		"a day, most of the manifest is here": {func(d *Distance) { d.Missed, d.Fetch = 900, 100<<10 }, ByManifest, "by manifest: 100 KiB"},
		"a day of large announcements":        {func(d *Distance) { d.Missed, d.Each = 100, 1<<20 }, ByManifest, "instead of 100 journal entries, about 100 MiB"},
		"a small module":                      {func(d *Distance) { d.Missed, d.Fetch, d.Names = 300, 20<<10, 900 }, ByManifest, "by manifest: 20 KiB"},
		"too far for what it remembers":       {func(d *Distance) { d.Missed, d.Near = 9800, false }, ByJournal, "by journal"},
		"much too far":                        {func(d *Distance) { d.Missed, d.Near = 90_000, false }, ByManifest, "by manifest"},
		"an old manifest":                     {func(d *Distance) { d.Missed, d.After = 9800, 9500 }, ByJournal, "by journal"},
		"no manifest":                         {func(d *Distance) { d.Missed, d.Manifest = 1_000_000, false }, ByJournal, "by journal: 1,000,000 entries"},
		"the journal has forgotten":           {func(d *Distance) { d.Missed, d.Gone = 1, true }, ByManifest, "the journal does not have"},
		"forgotten, and no manifest":          {func(d *Distance) { d.Gone, d.Manifest = true, false }, ByFull, "by an rsync of everything"},
	} {
		d := whole
		c.change(&d)
		if got, why := d.Cheapest(); got != c.want || !strings.Contains(why, c.says) {
			t.Errorf("%s: %s, %q; want %s, %q", name, got, why, c.want, c.says)
		}
	}
}
