package rsync

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// What this suite shows with the rsync of the system it shows again with an older one on either side: most mirrors and upstreams in the world have
// not been updated since yesterday. Both runs are processes of their own, and wait more than they work.
func TestAgainWithAnOlderRsync(t *testing.T) {
	if os.Getenv(testBinary) != "" || os.Getenv(testenv.RsyncdBinary) != "" {
		t.Skip("this is a run with another rsync already")
	}
	older := testenv.OlderRsync(t)
	for name, variable := range map[string]string{"on the mirror": testBinary, "on the upstream": testenv.RsyncdBinary} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.timeout=8m", "-test.v", "-test.skip=TestProcessesThatStayAreKilled|TestConfigs|TestPathErrors|TestASlowLink|TestAnUpstreamThatFalls|^Fuzz") // these start no rsync, or wait for the network
			cmd.Env = append(os.Environ(), variable+"="+older)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s=%s: %v\n%s", variable, older, err, failed(string(out)))
			}
			ran := strings.Count(string(out), "\n--- PASS: ")
			if ran < 50 {
				t.Errorf("only %d tests ran: %s", ran, out)
			}
			t.Logf("%d tests passed with %s=%s", ran, variable, older)
		})
	}
}

// failed is the part of a verbose run that tells of tests that did not pass.
func failed(out string) string {
	var kept, running []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "=== RUN   ") && !strings.Contains(line, "/") {
			kept, running = append(kept, running...), nil
		}
		switch {
		case strings.HasPrefix(line, "--- PASS: "), strings.HasPrefix(line, "--- SKIP: "):
			running = nil
		case !strings.HasPrefix(line, "    --- PASS: "):
			running = append(running, line)
		}
	}
	return strings.Join(append(kept, running...), "")
}
