package bench_test

func (b *bench) announcements() error { return nil }
