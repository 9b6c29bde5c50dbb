// Package statelock keeps a state folder to one process at a time.
//
// The file FOLDER/lock is held with flock, which ends with the process, however that ends. It names its holder while there is one and is empty
// after an end in order, so what the next holder finds in it tells that the one before was killed: then the databases of the folder want a check.
package statelock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// FileName is the name of the lock file in its folder.
const FileName = "lock"

// ErrInUse is in the error of Lock when another process has the folder.
var ErrInUse = errors.New("in use by another process")

const (
	retryEvery = 20 * time.Millisecond // how often a folder in use is tried again
	nameWithin = time.Second           // a holder has surely written its name so long after it locked
)

// Options of a lock.
type Options struct {
	// Wait is how long to wait for another holder to end. Zero: not at all.
	Wait time.Duration

	// Hint tells the user what to do about another holder.
	Hint string
}

// Held is a folder that this process has, until Release or Abandon.
type Held struct {
	file    *os.File
	unclean bool
	claimed bool
}

// Lock makes the folder dir if it is not there and takes it. While another process has it, Lock tries again for up to o.Wait; then the error Is
// ErrInUse, names the holder, and carries o.Hint. It is the same error, with that of ctx, when ctx ends while another process has the folder.
func Lock(ctx context.Context, dir string, o Options) (*Held, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	h := &Held{file: f}
	err = h.wait(ctx, dir, o)
	if err == nil {
		err = h.begin()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return h, nil
}

// wait takes the file's lock, or tells who has it.
func (h *Held) wait(ctx context.Context, dir string, o Options) error {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for start := time.Now(); ; {
		err := unix.Flock(int(h.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock state folder %s: %w", dir, err)
		}
		holder, err := h.read()
		if err != nil {
			return fmt.Errorf("state folder: %w", err)
		}
		waited := time.Since(start)
		if waited >= o.Wait && (holder != "" || waited >= nameWithin) {
			return inUse(dir, holder, o.Hint, nil)
		}
		select {
		case <-ctx.Done():
			return inUse(dir, holder, o.Hint, context.Cause(ctx))
		case <-retry.C:
		}
	}
}

func inUse(dir, holder, hint string, cause error) error {
	err := fmt.Errorf("state folder %s: %w (%s)", dir, ErrInUse, cmp.Or(holder, "it has not written its process id: it is starting, or its disk is full"))
	if cause != nil {
		err = fmt.Errorf("%w, waited for it: %w", err, cause)
	}
	return fault.With(err, fault.Unavailable, hint)
}

// begin finds out how the holder before ended, and says who starts.
func (h *Held) begin() error {
	before, err := h.read()
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	h.unclean = before != ""
	return h.write(fmt.Sprintf("process %d, starting\n", os.Getpid()))
}

// Unclean tells whether the holder before did not end in order.
func (h *Held) Unclean() bool { return h.unclean }

// Claim ends the start: from now on only Release is an end in order.
func (h *Held) Claim() error {
	h.claimed = true
	return h.write(fmt.Sprintf("process %d\n", os.Getpid()))
}

// Release gives the folder up after everything in it was closed in order.
func (h *Held) Release() error { return errors.Join(h.file.Truncate(0), h.file.Close()) }

// Abandon gives the folder up otherwise: before Claim as it was found, after it as not ended in order.
func (h *Held) Abandon() error {
	if !h.unclean && !h.claimed {
		return h.Release()
	}
	return h.file.Close()
}

// read returns what the file says: its first line, since a longer text may just be being replaced.
func (h *Held) read() (string, error) {
	text, err := io.ReadAll(io.NewSectionReader(h.file, 0, 64))
	line, _, _ := strings.Cut(string(text), "\n")
	return line, err
}

// write replaces what the file says, which is never empty in between. On a full disk it may stay empty: the name is lost, the lock is not.
func (h *Held) write(text string) error {
	_, err := h.file.WriteAt([]byte(text), 0)
	if err == nil {
		err = h.file.Truncate(int64(len(text)))
	}
	if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}
