package bench_test

func (b *bench) nothing() error { return nil }

const filesWhenIdle = 2000
