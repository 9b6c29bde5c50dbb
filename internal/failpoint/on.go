//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Enabled tells whether the program was built with the tag failpoint.
const Enabled = true

// armed is the point of this process. Unlike everything else here it is a variable of the package: a point is a line in the middle of somebody
// else's work, and nobody there has anything to hand in.
var (
	armed  = sync.OnceValue(func() target { return parse(os.Getenv(Env)) })
	passed atomic.Int64
)

// A target is the point at which the process dies, and at which passing of it. Its zero value is none.
type target struct {
	name string
	n    int64
}

// parse reads NAME:N. A target that is not one must not pass for a test that went well, so the process ends.
func parse(s string) target {
	if s == "" {
		return target{}
	}
	name, count, _ := strings.Cut(s, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		fmt.Fprintf(os.Stderr, "%s=%s: must be NAME:N\n", Env, s)
		os.Exit(2)
	}
	return target{name, n}
}

// Here marks the point name. If it is the process's and the time has come it does not return.
func Here(name string) {
	if t := armed(); t.name != name || passed.Add(1) != t.n {
		return
	}
	fmt.Fprintf(os.Stderr, "%s %s\n", Env, name)
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", Env, err)
		os.Exit(2)
	}
	select {} // until the signal is here
}

// LeftOut tells whether a safeguard is to be left out.
func LeftOut(s Safeguard) bool { return os.Getenv(EnvLeftOut) == string(s) }
