package all_test

import (
	"regexp"
	"testing"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/all"
)

// TestDrivers: each entry of the list can be configured, and its name used as that of a section, in status and in logs.
func TestDrivers(t *testing.T) {
	seen := make(map[string]bool)
	for _, d := range all.Registry() {
		if !regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`).MatchString(d.Name) {
			t.Errorf("driver name %q: must be 1 to 20 of [a-z0-9-] and begin with a letter", d.Name)
		}
		if seen[d.Name] {
			t.Errorf("driver %s is in the list twice", d.Name)
		}
		seen[d.Name] = true
		if d.Capabilities == nil {
			t.Errorf("driver %s has no Capabilities", d.Name)
			continue
		}
		sides := 0
		for _, role := range []transports.Role{transports.Master, transports.Mirror} {
			if d.Config(role) == nil {
				continue
			}
			sides++
			if d.Config(role) == d.Config(role) {
				t.Errorf("driver %s: Config returns the same %s configuration twice, want a new one each time", d.Name, role)
			}
			if d.Capabilities(role).MaxBody < 372 {
				t.Errorf("driver %s: carries %d bytes as %s, a signed line needs 372", d.Name, d.Capabilities(role).MaxBody, role)
			}
		}
		if sides == 0 {
			t.Errorf("driver %s: has a configuration for neither side", d.Name)
		}
	}
}
