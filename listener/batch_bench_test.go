package listener_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// BenchmarkBatch is what a mirror does about an announcement of 10,000 files in 100 directories, and beside it what its runs of rsync took.
func BenchmarkBatch(b *testing.B) {
	w := newWorld(b)
	a := w.adopted()
	var records []event.Record
	for i := range 10_000 {
		w.write(testenv.File(fmt.Sprintf("pool/%02d/package-%02d.rpm", i/100, i%100), ""))
	}
	at := time.Now().Truncate(time.Second)
	for b.Loop() {
		b.StopTimer()
		at, records = at.Add(2*time.Second), records[:0]
		for i := range 10_000 {
			path := fmt.Sprintf("pool/%02d/package-%02d.rpm", i/100, i%100)
			w.must(os.Chtimes(filepath.Join(w.up, path), at, at))
			records = append(records, w.rec(event.Write, path))
		}
		x := w.announce(records...)
		b.StartTimer()
		w.send(a, x)
		w.must(a.Reconcile(b.Context(), pub))
	}
	if s := w.status(a); s.Applied != w.serial {
		b.Errorf("%+v", s)
	}
}
