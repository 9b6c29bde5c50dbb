package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

func TestFaults(t *testing.T) {
	bare := errors.New("bare")
	inner := fault.With(fs.ErrNotExist, fault.Config, "make it")
	for _, c := range []struct {
		name   string
		err    error
		status int
		hint   string
	}{
		{"none", nil, fault.OK, ""},
		{"bare", bare, fault.Failed, ""},
		{"with both", inner, fault.Config, "make it"},
		{"wrapped", fmt.Errorf("open: %w", inner), fault.Config, "make it"},
		{"joined", errors.Join(bare, inner), fault.Config, "make it"},
		{"in another, which wins", fault.With(fmt.Errorf("open: %w", inner), fault.TryAgain, "wait"), fault.TryAgain, "wait"},
		{"in another without a hint", fault.With(inner, fault.Usage, ""), fault.Usage, "make it"},
		{"without a status", fault.With(bare, 0, "look"), fault.Failed, "look"},
		{"of nothing", fault.With(nil, fault.Config, "make it"), fault.OK, ""},
	} {
		if got := fault.StatusOf(c.err); got != c.status {
			t.Errorf("%s: status %d, want %d", c.name, got, c.status)
		}
		if got := fault.HintOf(c.err); got != c.hint {
			t.Errorf("%s: hint %q, want %q", c.name, got, c.hint)
		}
	}
	if err := fault.With(nil, fault.Config, "make it"); err != nil {
		t.Errorf("a fault of nothing is %v", err)
	}
	if !errors.Is(inner, fs.ErrNotExist) || inner.Error() != fs.ErrNotExist.Error() {
		t.Errorf("%v hides its error", inner)
	}
}
