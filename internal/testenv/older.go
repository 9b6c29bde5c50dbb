package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The older rsync that tests run with besides the system's: what Debian 12 came with, and what many mirrors still have.
const (
	olderVersion = "3.2.7"
	olderPackage = "rsync=" + olderVersion + "-*" // as apt-get download takes it
)

// RsyncdBinary is the environment variable that names the rsync which StartRsyncd starts unless it is told another one.
const RsyncdBinary = "MIRRORBUS_TEST_RSYNCD"

// OlderRsync returns the path of an rsync 3.2.7. It is taken from Debian's package, fetched once through apt into the user's cache folder;
// with RequireAll that is done here, without it only what is there already is used. Where this version cannot be had, another distribution or
// another release of Debian, the test is skipped, even with RequireAll: no machine could be set up to have it.
func OlderRsync(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no folder to keep rsync " + olderVersion + " in: " + err.Error())
	}
	dir := filepath.Join(cache, "mirrorbus-test", "rsync-"+olderVersion)
	binary := filepath.Join(dir, "usr", "bin", "rsync")
	if olderWorks(binary) == nil {
		return binary
	}
	if os.Getenv(RequireAll) != "1" {
		t.Skipf("rsync %s is not in %s; %s=1 fetches it where apt has it", olderVersion, dir, RequireAll)
	}
	if err := fetchOlder(dir); err != nil {
		t.Skipf("rsync %s cannot be had here: %v", olderVersion, err)
	}
	if err := olderWorks(binary); err != nil {
		t.Skipf("rsync %s does not run here: %v", olderVersion, err)
	}
	return binary
}

func olderWorks(binary string) error {
	out, err := exec.Command(binary, "--version").CombinedOutput()
	if err == nil && !strings.HasPrefix(string(out), "rsync  version "+olderVersion) {
		err = fmt.Errorf("it says %.60q", out)
	}
	return err
}

// fetchOlder unpacks the package into dir. It is renamed into place, so that several tests may do it at once.
func fetchOlder(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a folder of the cache
	if err := download(work); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(packages) != 1 {
		return errors.Join(err, fmt.Errorf("apt-get brought %q", packages))
	}
	unpacked := filepath.Join(work, "unpacked")
	if out, err := exec.Command("dpkg", "-x", packages[0], unpacked).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg -x: %w: %s", err, out)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(unpacked, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// download fetches the package into dir; root brings the lists of packages up to date if it is not in them.
func download(dir string) error {
	get := func(args ...string) error {
		cmd := exec.Command("apt-get", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return err
	}
	err := get("-q", "download", olderPackage)
	if err != nil && os.Geteuid() == 0 && get("-q", "update") == nil {
		err = get("-q", "download", olderPackage)
	}
	return err
}
