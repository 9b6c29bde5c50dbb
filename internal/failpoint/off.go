//go:build !failpoint

package failpoint

// Enabled tells whether the program was built with the tag failpoint.
const Enabled = false

// Here marks the point name.
func Here(string) {}

// LeftOut tells whether a safeguard is to be left out: never.
func LeftOut(Safeguard) bool { return false }
