package journal_test

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkAppend shows what a durable announcement costs alone, and what group commit makes of fifty callers.
func BenchmarkAppend(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		j, _ := open(b, b.TempDir(), options(b))
		e := write("a", "b", "c")
		for b.Loop() {
			_, err := j.Append(b.Context(), e)
			check(b, err)
		}
	})
	b.Run("50 callers", func(b *testing.B) {
		j, _ := open(b, b.TempDir(), options(b))
		var n atomic.Int64
		b.SetParallelism(25)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := j.Append(b.Context(), write(fmt.Sprint(n.Add(1)))); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
