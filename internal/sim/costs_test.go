package sim

import (
	"crypto/ed25519"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// TestCosts measures what TestTenThousand reckons with, in CPU time, so that other work on the machine does not matter much: a whole rsync run and a
// refused one, of which the daemon has a part, and an SSH handshake with both its ends. In `make sim` it fails if a cost is four times what is
// reckoned with; in the suite the machine may be too busy for that to mean anything.
func TestCosts(t *testing.T) {
	rsync := testenv.Need(t, "rsync")
	dir, dest := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := testenv.StartRsyncd(t, testenv.RsyncdOptions{}, testenv.Module{Name: "m", Path: dir})
	const runs = 30
	cpu := measure(t, syscall.RUSAGE_CHILDREN, runs, func() {
		if out, err := exec.Command(rsync, "-t", d.URL("m", "a"), dest).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	t.Logf("rsync of one file, the client's part: %v of CPU; reckoned for the daemon's: %v", cpu, costs.Run)
	shake := measure(t, syscall.RUSAGE_SELF, runs, func() { handshake(t) })
	t.Logf("SSH handshake, both ends: %v of CPU; reckoned for the hub's: %v", shake, costs.Handshake)
	_, alone := os.LookupEnv("MIRRORBUS_SIM_SEEDS")
	if cpu <= 0 || shake <= 0 || alone && (shake/2 > 4*costs.Handshake || cpu > 4*costs.Run) {
		t.Errorf("costs are far from what is reckoned with: handshake %v, rsync %v", shake, cpu)
	}
}

// measure is the CPU time of one call.
func measure(t *testing.T, who, runs int, do func()) time.Duration {
	t.Helper()
	var before, after syscall.Rusage
	if err := syscall.Getrusage(who, &before); err != nil {
		t.Fatal(err)
	}
	for range runs {
		do()
	}
	if err := syscall.Getrusage(who, &after); err != nil {
		t.Fatal(err)
	}
	spent := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	return time.Duration(spent / int64(runs))
}

// handshake connects an SSH client to an SSH server.
func handshake(t *testing.T) {
	t.Helper()
	key, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	conf := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return &ssh.Permissions{}, nil }}
	conf.AddHostKey(key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was only listening
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _, _, err = ssh.NewServerConn(c, conf)
		}
		done <- err
	}()
	c, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{User: "x", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(key.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
