package bench_test

func (b *bench) flips() error { return nil }
