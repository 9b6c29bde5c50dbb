package bench_test

func (b *bench) subscriptions() error { return nil }
