package signers_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// A kept store with its files and a signature by the key it trusts.
type kept struct {
	*signers.Store
	trust, revoked string
	key            keyFile
	sig            *sshsig.Signature
}

func newStore(t *testing.T) kept {
	t.Helper()
	dir := t.TempDir()
	k := kept{trust: filepath.Join(dir, "trust"), revoked: filepath.Join(dir, "revoked"), key: newKey(t)}
	k.sig = k.key.sign(t, announce)
	write(t, k.trust, []byte("alice "+k.key.public+"\n"))
	write(t, k.revoked, nil)
	s, err := signers.Open(k.trust, k.revoked)
	if err != nil {
		t.Fatal(err)
	}
	k.Store = s
	return k
}

// expect checks whether alice may sign, and what Err says.
func (k kept) expect(t *testing.T, good bool, wantErr string) {
	t.Helper()
	if err := k.VerifyAs("alice", k.sig, message, announce, time.Now()); (err == nil) != good {
		t.Errorf("VerifyAs: %v, should be good: %v", err, good)
	}
	if err := k.Err(); wantErr == "" && err != nil || wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)) {
		t.Errorf("Err: %v, should say %q", err, wantErr)
	}
}

// replace puts a file in place at once, as an editor does.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", []byte(text))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestStoreFollowsItsFiles(t *testing.T) {
	k := newStore(t)
	k.expect(t, true, "")
	replace(t, k.trust, "bob "+k.key.public+"\n")
	k.expect(t, false, "")
	write(t, k.trust, []byte("alice "+k.key.public+"\nbad line\n"))
	k.expect(t, true, "")
	if p := k.Problems(); len(p) != 1 || p[0].Line != 2 || p[0].File != k.trust {
		t.Errorf("problems %v", p)
	}
	replace(t, k.revoked, k.key.public+"\n")
	check(t, os.Chtimes(k.revoked, time.Time{}, time.Now().Add(-time.Hour)))
	k.expect(t, false, "")
	replace(t, k.trust, "alice "+k.key.public+" again\n") // a new trust file does not forget what is revoked
	k.expect(t, false, "")
	replace(t, k.revoked, "")
	k.expect(t, true, "")
	replace(t, k.trust, "") // nobody is trusted any more: an empty file is a good one
	k.expect(t, false, "")
}

// TestStoreRewrittenInPlace changes a file without changing its size, inode or time: twice within one tick of a file system's clock.
func TestStoreRewrittenInPlace(t *testing.T) {
	k := newStore(t)
	for range 1000 {
		tick := time.Now()
		write(t, k.trust, []byte("alice "+k.key.public+"\n"))
		check(t, os.Chtimes(k.trust, tick, tick))
		k.expect(t, true, "")
		write(t, k.trust, []byte("carol "+k.key.public+"\n"))
		check(t, os.Chtimes(k.trust, tick, tick))
		if time.Since(tick) < signers.Settled/2 { // else no clock is that coarse
			k.expect(t, false, "")
			return
		}
	}
	t.Skip("this machine is too busy to write a file twice in 50 ms")
}

func TestStoreKeepsTheLastGoodFiles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, k kept)
		want  string
	}{
		"trust file gone":           {func(t *testing.T, k kept) { check(t, os.Remove(k.trust)) }, "trust file: stat"},
		"trust file all bad":        {func(t *testing.T, k kept) { replace(t, k.trust, "bad\n") }, "no line is good; " /* then where */},
		"trust file too large":      {func(t *testing.T, k kept) { check(t, os.Truncate(k.trust, signers.MaxFile+1)) }, "larger than"},
		"trust file is a folder":    {func(t *testing.T, k kept) { check(t, os.Remove(k.trust)); check(t, os.Mkdir(k.trust, 0o700)) }, "not a regular file"},
		"trust file for all":        {func(t *testing.T, k kept) { check(t, os.Chmod(k.trust, 0o666)) }, "chmod go-w " /* FILE */},
		"trust folder for all":      {func(t *testing.T, k kept) { check(t, os.Chmod(filepath.Dir(k.trust), 0o777)) }, "chmod o-w "},
		"revocation file gone":      {func(t *testing.T, k kept) { check(t, os.Remove(k.revoked)) }, "revocation file: stat"},
		"revocation file malformed": {func(t *testing.T, k kept) { replace(t, k.revoked, "bad\n") }, "revocation file: "},
		"revocation file for group": {func(t *testing.T, k kept) { check(t, os.Chmod(k.revoked, 0o660)) }, "chmod go-w "},
	} {
		t.Run(name, func(t *testing.T) {
			k := newStore(t)
			c.spoil(t, k)
			k.expect(t, true, c.want)
			if s, err := signers.Open(k.trust, k.revoked); err == nil {
				t.Errorf("a new process opens it: %v", s)
			}
			check(t, os.Chmod(filepath.Dir(k.trust), 0o700))
			check(t, os.RemoveAll(k.trust))
			replace(t, k.trust, "alice "+k.key.public+"\n")
			replace(t, k.revoked, "")
			k.expect(t, true, "")
		})
	}
}

func TestStoreWithoutRevocationFile(t *testing.T) {
	k := newStore(t)
	s, err := signers.Open(k.trust, "")
	if err != nil {
		t.Fatal(err)
	}
	if keys := s.KeyByID(sshsig.KeyID(k.key.key(t))); len(keys) != 1 {
		t.Errorf("keys %v", keys)
	}
	who, err := s.Verify(k.sig, message, announce, time.Now())
	if err != nil || len(who) != 1 || who[0] != "alice" {
		t.Errorf("Verify: %q, %v", who, err)
	}
	if err := s.Permits("alice", k.key.key(t), report, time.Now()); err != nil {
		t.Error(err)
	}
	if who, err := s.Principals(k.key.key(t), report, time.Now()); err != nil || len(who) != 1 {
		t.Errorf("Principals: %q, %v", who, err)
	}
}

// TestStoreConcurrently is for the race detector: answers while both files change.
func TestStoreConcurrently(t *testing.T) {
	k := newStore(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if err := k.VerifyAs("alice", k.sig, message, announce, time.Now()); err != nil {
					t.Error(err)
				}
				if err := k.Err(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		replace(t, k.trust, "alice "+k.key.public+"\n")
		replace(t, k.revoked, "# none\n")
	}
	wg.Wait()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
