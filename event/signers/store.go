package signers

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// A Store is a trust file and a revocation file as they are now: it looks at both before each answer and reads what changed. A file that is
// gone, unreadable or malformed does not take away the last good one; Err says so. Its methods may be called from several goroutines.
type Store struct {
	trust, revoked string

	mu       sync.Mutex
	file     *File // never nil; replaced, not changed
	problems []Problem
	seen     [2]stamp // of the trust and the revocation file when last read
	errs     [2]error // what was wrong with them then
}

// Open reads the trust file and the revocation file ("" for none). Both must be good; bad lines of the trust file are Problems.
func Open(trust, revoked string) (*Store, error) {
	s := &Store{trust: trust, revoked: revoked, file: &File{Name: trust}}
	if err := s.Err(); err != nil {
		return nil, err
	}
	return s, nil
}

// Current returns the trust in force, with the revoked keys.
func (s *Store) Current() *File {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := look(s.trust); !now.same(s.seen[0]) {
		s.seen[0] = now
		s.errs[0] = s.readTrust()
	}
	if s.revoked == "" {
		return s.file
	}
	if now := look(s.revoked); !now.same(s.seen[1]) {
		s.seen[1] = now
		s.errs[1] = s.readRevoked()
	}
	return s.file
}

// Err says why a file as it is on disk is not the one in force; nil if both are.
func (s *Store) Err() error {
	s.Current()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs[0], s.errs[1])
}

// Problems are the bad lines of the trust file in force.
func (s *Store) Problems() []Problem {
	s.Current()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problems
}

// KeyByID is File.KeyByID of the trust in force.
func (s *Store) KeyByID(id [8]byte) []ssh.PublicKey { return s.Current().KeyByID(id) }

// Verify is File.Verify of the trust in force.
func (s *Store) Verify(sig *sshsig.Signature, message []byte, namespace string, at time.Time) ([]string, error) {
	return s.Current().Verify(sig, message, namespace, at)
}

// VerifyAs is File.VerifyAs of the trust in force.
func (s *Store) VerifyAs(principal string, sig *sshsig.Signature, message []byte, namespace string, at time.Time) error {
	return s.Current().VerifyAs(principal, sig, message, namespace, at)
}

// Permits is File.Permits of the trust in force.
func (s *Store) Permits(principal string, key ssh.PublicKey, namespace string, at time.Time) error {
	return s.Current().Permits(principal, key, namespace, at)
}

// Principals is File.Principals of the trust in force.
func (s *Store) Principals(key ssh.PublicKey, namespace string, at time.Time) ([]string, error) {
	return s.Current().Principals(key, namespace, at)
}

func (s *Store) readTrust() error {
	var next *File
	var problems []Problem
	err := withFile(s.trust, func(r io.Reader) (err error) {
		next, problems, err = Parse(r, s.trust)
		return err
	})
	if err != nil {
		return fmt.Errorf("trust file: %w", err)
	}
	if len(next.Entries) == 0 && len(problems) > 0 {
		return fmt.Errorf("trust file: no line is good; %s", problems[0])
	}
	next.Revoked = s.file.Revoked
	s.file, s.problems = next, problems
	return nil
}

func (s *Store) readRevoked() error {
	var revoked *Revoked
	err := withFile(s.revoked, func(r io.Reader) (err error) {
		revoked, err = ParseRevoked(r, s.revoked)
		return err
	})
	if err != nil {
		return fmt.Errorf("revocation file: %w", err)
	}
	next := *s.file
	next.Revoked = revoked
	s.file = &next
	return nil
}

// withFile opens a file that only its owner may change, and hands it to read.
func withFile(path string, read func(io.Reader) error) error {
	if err := Check(path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(read(f), f.Close())
}

// Check refuses a trust or revocation file that somebody else could change: who can write it can speak for everybody in it. A folder like
// /tmp, where only the owner may replace a file, is good enough.
func Check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be changed by others (mode %04o); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	dir := filepath.Dir(path)
	if info, err = os.Stat(dir); err != nil {
		return err
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("%s can be replaced by others (its folder has mode %04o); run: chmod o-w %s", path, info.Mode().Perm(), dir)
	}
	return nil
}

// A stamp tells one state of a file from another.
type stamp struct {
	info fs.FileInfo // nil if the file could not be looked at
	mode fs.FileMode // of its folder, which Check judges too
	at   time.Time
}

func look(path string) stamp {
	s := stamp{at: time.Now()}
	if dir, err := os.Stat(filepath.Dir(path)); err == nil {
		s.mode = dir.Mode()
	}
	if info, err := os.Stat(path); err == nil {
		s.info = info
	}
	return s
}

// settled is how old a file must be for the next change to show in its time; clocks of file systems tick coarsely.
const settled = 100 * time.Millisecond

// same tells whether nothing changed since old was taken.
func (s stamp) same(old stamp) bool {
	if s.info == nil || old.info == nil {
		return s.info == nil && old.info == nil && !old.at.IsZero()
	}
	a, b := s.info, old.info
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode() && s.mode == old.mode &&
		old.at.Sub(b.ModTime()).Abs() > settled
}
