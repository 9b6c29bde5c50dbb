package collector_test

import (
	"context"
	"testing"
	"unicode"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger/collector"
)

// FuzzPut: any report that a mirror can sign is kept as it says, and its text is fit for a terminal.
func FuzzPut(f *testing.F) {
	const tail = " key=AAAAAAAAAAA sig=AAAA"
	f.Add([]byte("mirrorbus1 report module=m mirror=x epoch=0123abcd serial=1 run=9223372036854775807 outcome=failed applied=0 head=- err=%C2%9B2J%0A" + tail))
	f.Add([]byte("mirrorbus1 report module=m mirror=x epoch=0123abcd serial=999999999999999 run=0 outcome=have applied=999999999999999 head=-" + tail))
	f.Add([]byte("mirrorbus1 report module=m mirror=x epoch=0123abcd serial=1 run=1 outcome=applied applied=1 head=- at=2026-11-20T19:00:00Z took=5 heard=-3 via=hub files=9223372036854775807 bytes=1 del=2" + tail))
	c := open(f, f.TempDir())
	f.Fuzz(func(t *testing.T, line []byte) {
		s, err := event.Read(line)
		if err != nil || s.Report == nil {
			return
		}
		r := *s.Report
		check(t, c.Put(context.Background(), r, start))
		stand := only(t, c, r)
		if stand.Applied != r.Applied || stand.Epoch != r.Epoch || stand.Head != r.Head {
			t.Errorf("%+v is kept as %+v", r, stand)
		}
		for _, x := range stand.Error {
			if !unicode.IsPrint(x) {
				t.Errorf("%q is kept as %q", r.Error, stand.Error)
			}
		}
		if r.Outcome == event.Have {
			return
		}
		said, err := c.Words(context.Background(), r.Module, r.Epoch, r.Serial)
		check(t, err)
		if len(said) != 1 || said[0].Outcome != r.Outcome || said[0].Files != r.Files || said[0].Took != r.Took || said[0].Heard != r.Heard {
			t.Errorf("%+v is kept as %+v", r, said)
		}
	})
}

// only is where the one mirror stands that has reported, which is then forgotten.
func only(t *testing.T, c *collector.Collector, r event.Report) collector.Standing {
	t.Helper()
	all, err := c.Standings(context.Background(), r.Module)
	check(t, err)
	if len(all) != 1 || all[0].Mirror != r.Mirror {
		t.Fatalf("after %+v there are %+v", r, all)
	}
	t.Cleanup(func() { check(t, c.Forget(context.Background(), r.Mirror)) })
	return all[0]
}
