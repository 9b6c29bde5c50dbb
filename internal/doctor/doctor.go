// Package doctor runs the checks of `mirrorbus doctor`: things that are not wrong in a configuration but on the host around it.
package doctor

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/event/sshsig"
)

// A Level says how bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Bad  Level = "bad"
)

// A Finding is what one check found.
type Finding struct {
	Check  string `json:"check"`
	Level  Level  `json:"level"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// A Check looks at one thing, or at several that belong together. One of Run and RunAll is set.
type Check struct {
	Name   string
	Run    func(ctx context.Context) Finding
	RunAll func(ctx context.Context) []Finding
}

// perCheck bounds one check: a doctor does not wait for the dead.
const perCheck = 15 * time.Second

// Run runs the checks in order, hands each finding to show, and tells whether none is Bad.
func Run(ctx context.Context, checks []Check, show func(Finding) error) (bool, error) {
	well := true
	for _, c := range checks {
		one, cancel := context.WithTimeout(ctx, perCheck)
		var found []Finding
		if c.Run != nil {
			found = append(found, c.Run(one))
		} else {
			found = c.RunAll(one)
		}
		cancel()
		for _, f := range found {
			f.Check = c.Name
			well = well && f.Level != Bad
			if err := show(f); err != nil {
				return well, err
			}
		}
	}
	return well, ctx.Err()
}

// Print writes a finding for people.
func Print(w io.Writer, f Finding) error {
	_, err := fmt.Fprintf(w, "%-4s  %s: %s\n", f.Level, f.Check, f.Detail)
	if err == nil && f.Remedy != "" {
		_, err = fmt.Fprintf(w, "      hint: %s\n", f.Remedy)
	}
	return err
}

func good(format string, args ...any) Finding {
	return Finding{Level: OK, Detail: fmt.Sprintf(format, args...)}
}

func bad(remedy, format string, args ...any) Finding {
	return Finding{Level: Bad, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func warn(remedy, format string, args ...any) Finding {
	return Finding{Level: Warn, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Key checks that the key can be used and, if trust is not empty, that the trust file lets it sign for name in each namespace.
func Key(key, agent, trust, revoked, name string, kinds ...event.Kind) Check {
	return Check{Name: "key", Run: func(context.Context) Finding {
		signer, err := signers.OpenSigner(key, agent)
		if err != nil {
			return bad("make one with mirrorbus init, or mend its permissions", "%v", err)
		}
		if _, err := sshsig.Sign(signer, event.Change.Namespace(), []byte("doctor")); err != nil {
			return bad("if the key is in ssh-agent, see that it answers", "%v", err)
		}
		if trust == "" {
			return good("signs")
		}
		store, err := signers.Open(trust, revoked)
		if err != nil {
			return bad(mendTrust, "%v", err)
		}
		for _, k := range kinds {
			if err := store.Permits(name, signer.PublicKey(), k.Namespace(), time.Now()); err != nil {
				return warn("mirrors need it as in their own trust file; add the line that init made", "%s does not let it sign a %s as %s: %v", trust, k, name, err)
			}
		}
		return good("signs, and %s lets it", trust)
	}}
}

// mendTrust is the remedy for files of keys that cannot be read.
const mendTrust = "see that trust and revoked name files of the forms that ssh-keygen reads and writes"

// Trust checks the trust file itself.
func Trust(path, revoked string) Check {
	return Check{Name: "trust file", Run: func(context.Context) Finding {
		if err := signers.Check(path); err != nil {
			return bad("whoever can write it decides whom you trust: chmod go-w", "%v", err)
		}
		store, err := signers.Open(path, revoked)
		if err != nil {
			return bad(mendTrust, "%v", err)
		}
		if problems := store.Problems(); len(problems) > 0 {
			return warn("such lines count for nothing", "%v (%d lines in all)", problems[0], len(problems))
		}
		return good("%d entries", len(store.Current().Entries))
	}}
}

// Folder checks that a folder is there and, if write, that this user can write in it; and that there is room.
func Folder(name, path string, write bool) Check {
	return Check{Name: name, Run: func(context.Context) Finding {
		fi, err := os.Stat(path)
		switch {
		case err != nil:
			return bad("create or mount it", "%v", err)
		case !fi.IsDir():
			return bad("name the directory itself", "%s is not a directory", path)
		}
		if _, err := os.ReadDir(path); err != nil {
			return bad("give this user access", "%v", err)
		}
		if write {
			if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
				return bad("run as the user who owns it", "%s cannot be written by %s: %v", path, userName(), err)
			}
		}
		return room(path)
	}}
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Geteuid())
}

// lowBytes and lowInodes are what a file system should have left.
const (
	lowBytes  = 256 << 20
	lowInodes = 1000
)

func room(path string) Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return bad("see whether its file system is well", "statfs %s: %v", path, err)
	}
	if st.Blocks == 0 { // it does not tell
		return good("%s", path)
	}
	free := st.Bavail * uint64(st.Bsize) //nolint:unconvert // the types differ between systems
	if free < lowBytes || st.Files > 0 && st.Ffree < lowInodes {
		return warn("make room: a full disk blocks a module until there is", "%s has %s and %d inodes left", path, humanize.IBytes(free), st.Ffree)
	}
	return good("%s, %s left", path, humanize.IBytes(free))
}

// Dial checks that something listens at a TCP address.
func Dial(name, address string) Check {
	return Check{Name: name, Run: func(ctx context.Context) Finding {
		start := time.Now()
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return bad("is it running, and does a firewall let you reach it?", "%v", err)
		}
		if err := conn.Close(); err != nil {
			return warn("", "%v", err)
		}
		return good("%s answers in %s", address, time.Since(start).Round(time.Millisecond))
	}}
}

// Links looks for symbolic links near the top of a mirror's tree that lead to directories and are not configured: paths through them are refused.
func Links(tree string, followed []string) Check {
	known := map[string]bool{}
	for _, f := range followed {
		known[strings.Trim(f, "/")] = true
	}
	return Check{Name: "symbolic links in " + tree, Run: func(context.Context) Finding {
		var found []string
		for _, pattern := range []string{"*", "*/*"} {
			names, err := fs.Glob(os.DirFS(tree), pattern)
			if err == nil {
				_, err = os.ReadDir(tree) // which Glob does not tell
			}
			if err != nil {
				return bad("create or mount it, and give this user access", "%v", err)
			}
			for _, name := range names {
				dir := path.Dir(name)
				behind := linkedFolder(filepath.Join(tree, dir)) && dir != "." && !known[dir] // of a link that is told itself
				if linkedFolder(filepath.Join(tree, name)) && !known[name] && !behind {
					found = append(found, name)
				}
			}
		}
		if len(found) > 0 {
			return warn("if part of the module lies behind one, name it in follow_links; if the master has the same link, all is well", "%d lead to directories: %.200v", len(found), found)
		}
		return good("none that lead to directories")
	}}
}

func linkedFolder(name string) bool {
	fi, err := os.Lstat(name)
	if err != nil || fi.Mode()&os.ModeSymlink == 0 {
		return false
	}
	to, err := os.Stat(name)
	return err == nil && to.IsDir()
}

// Socket checks that a daemon answers on its control socket.
func Socket(name, path string) Check {
	return Check{Name: name, Run: func(ctx context.Context) Finding {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return warn("start it, or run this as a user of its group", "%v", err)
		}
		if err := conn.Close(); err != nil {
			return warn("", "%v", err)
		}
		return good("answers on %s", path)
	}}
}
