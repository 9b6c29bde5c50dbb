package amqp_test

import (
	"fmt"
	"slices"

	"go.uber.org/goleak"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// await waits until the member has connected more often than so many times.
func (m *member) await(connects int) {
	m.t.Helper()
	testenv.WaitFor(m.t, patience, func() error {
		if s := m.last(); !s.Connected || m.connections() <= connects {
			return fmt.Errorf("%s is not connected: %+v", m.name, s)
		}
		return nil
	})
}

// awaitLoss waits until the member knows that it is not connected, or has been without a connection since so many.
func (m *member) awaitLoss(connects int) {
	m.t.Helper()
	testenv.WaitFor(m.t, patience, func() error {
		if m.last().Connected && m.connections() <= connects {
			return fmt.Errorf("%s believes that it is connected", m.name)
		}
		return nil
	})
}

// gets waits until the member has received each of ids, looks at their order and returns how many came again.
func (m *member) gets(ids ...string) (repeats int) {
	m.t.Helper()
	m.getsAll(ids...)
	got := m.received()
	if order := firsts(got); !slices.Equal(order, ids) {
		m.t.Errorf("%s has received %.2000q, want %.2000q", m.name, order, ids)
	}
	return len(got) - len(firsts(got))
}

// getsAll waits until the member has received each of ids, in any order.
func (m *member) getsAll(ids ...string) {
	m.t.Helper()
	testenv.WaitFor(m.t, patience, func() error {
		got := map[string]bool{}
		for _, id := range m.received() {
			got[id] = true
		}
		for _, id := range ids {
			if !got[id] {
				return fmt.Errorf("%s has not received %s; it has %d of %d; errors:\n\t%s", m.name, id, len(got), len(ids), m.errors())
			}
		}
		return nil
	})
}

// firsts is a list without what came before in it.
func firsts(ids []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		again := seen[id]
		seen[id] = true
		return again
	})
}

// numbered are n ids.
func numbered(name string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%04d", name, i)
	}
	return ids
}

// nothingLeft fails the test if goroutines run that did not before, or if the broker has connections in the vhost.
func (s *site) nothingLeft(before goleak.Option) {
	s.t.Helper()
	if err := goleak.Find(before, goleak.IgnoreAnyFunction("github.com/mirrorbus/mirrorbus/internal/testenv.(*server).start.func1")); err != nil {
		s.t.Error(err)
	}
	testenv.WaitFor(s.t, patience, func() error {
		if left := s.node.Eval(s.connections() + "."); left != "[]" {
			return fmt.Errorf("the broker still has connections: %s", left)
		}
		return nil
	})
}

// connections is the Erlang for the list of those in the vhost.
func (s *site) connections() string {
	return fmt.Sprintf("[P || P <- rabbit_networking:connections(), (catch rabbit_networking:connection_info(P, [vhost])) =:= [{vhost, <<%q>>}]]", s.vhost)
}

// cutAll closes all connections in the vhost, for a reason that their ends are told, and waits until these have heard it: until then they go on with
// what they were sent before.
func (s *site) cutAll(reason string) {
	s.t.Helper()
	s.node.Eval(fmt.Sprintf(`Ps = %s, [rabbit_networking:close_connection(P, %q) || P <- Ps],
		[begin M = monitor(process, P), receive {'DOWN', M, process, _, _} -> gone after 10000 -> late end end || P <- Ps].`, s.connections(), reason))
}
