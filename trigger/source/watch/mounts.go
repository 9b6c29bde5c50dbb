package watch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
)

// A mount is one line of /proc/self/mountinfo, as proc_pid_mountinfo(5) has it.
type mount struct {
	id     string // another one each time it is mounted
	point  string // where it is mounted
	root   string // which part of the file system is
	kind   string
	source string
}

// maxMounts bounds what is read of the list of mounts, in bytes.
const maxMounts = 16 << 20

// parseMounts reads the list of mounts, in the order in which they were made.
func parseMounts(text string) ([]mount, error) {
	var all []mount
	for line := range strings.Lines(text) {
		front, back, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, b := strings.Split(front, " "), strings.Split(back, " ")
		if !ok || len(f) < 6 || len(b) < 2 {
			return nil, fmt.Errorf("line %.200q: is no mount", line)
		}
		all = append(all, mount{id: f[0], point: unescape(f[4]), root: unescape(f[3]), kind: b[0], source: unescape(b[1])})
	}
	return all, nil
}

// same tells whether m is what o was, perhaps mounted anew.
func (m mount) same(o mount) bool {
	m.id = o.id
	return m == o
}

// unescape reads the octal escapes of what would break the line.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }

// covering is the mount that path lies on: the last one on the longest way to it.
func covering(all []mount, path string) mount {
	var best mount
	for _, m := range all {
		if (m.point == path || m.point == "/" || event.Under(m.point, path)) && len(m.point) >= len(best.point) {
			best = m
		}
	}
	return best
}

// mountList is /proc/self/mountinfo, kept open since poll(2) on it tells of changes.
type mountList struct{ f *os.File }

func openMounts() (mountList, error) {
	f, err := os.Open("/proc/self/mountinfo")
	return mountList{f}, err
}

func (l mountList) read() ([]mount, error) {
	if _, err := l.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(l.f, maxMounts))
	if err != nil {
		return nil, err
	}
	return parseMounts(string(text))
}

// A place is the root of what is watched, as it was when that began.
type place struct {
	asked    string // as it was asked for
	root     string // without symbolic links
	dev, ino uint64
	mount    mount
	over     []string // mount points below the root, relative to it, that came since; names there are not those of the tree
	before   map[string]bool
	list     mountList
}

// Why a place can no longer be watched as it was.
var (
	errReplaced = errors.New("was mounted anew, or another directory has taken its place")
	errGone     = errors.New("is not there")
	errAway     = errors.New("is on another file system than before: it was unmounted, or something was mounted over it")
)

// openPlace looks at root, which may be a symbolic link.
func openPlace(root string) (*place, error) {
	real, err := realPath(root)
	if err != nil {
		return nil, err
	}
	p := &place{asked: root, root: real, before: map[string]bool{}}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: real, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, &os.PathError{Op: "open", Path: real, Err: unix.ENOTDIR}
	}
	p.dev, p.ino = uint64(st.Dev), st.Ino
	if p.list, err = openMounts(); err != nil {
		return nil, err
	}
	all, err := p.list.read()
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.mount = covering(all, real)
	for _, m := range all {
		if event.Under(real, m.point) {
			p.before[m.point] = true
		}
	}
	return p, nil
}

func (p *place) close() error { return p.list.f.Close() }

// look tells whether the place is what it was. It notes what was mounted below it, and returns what was uncovered again.
func (p *place) look() (uncovered []string, err error) {
	all, err := p.list.read()
	if err != nil {
		return nil, err
	}
	now := covering(all, p.root)
	if !now.same(p.mount) {
		return nil, errAway
	}
	var st unix.Stat_t
	switch err := unix.Stat(p.asked, &st); {
	case err != nil:
		return nil, errGone
	case now.id != p.mount.id, uint64(st.Dev) != p.dev, st.Ino != p.ino:
		return nil, errReplaced
	}
	return p.compare(all), nil
}

// compare notes what is mounted below the place now, and returns where something no longer is.
func (p *place) compare(all []mount) (uncovered []string) {
	var over []string
	still := map[string]bool{}
	for _, m := range all {
		if !event.Under(p.root, m.point) {
			continue
		}
		still[m.point] = true
		if !p.before[m.point] {
			over = append(over, m.point[len(p.root)+1:])
		}
	}
	for point := range p.before {
		if !still[point] {
			delete(p.before, point)
			uncovered = append(uncovered, point[len(p.root)+1:])
		}
	}
	for _, was := range p.over {
		if !contains(over, was) {
			uncovered = append(uncovered, was)
		}
	}
	p.over = over
	return uncovered
}

// contains tells whether path is one of dirs, or below one.
func contains(dirs []string, path string) bool {
	for _, d := range dirs {
		if d == path || event.Under(d, path) {
			return true
		}
	}
	return false
}

// realPath is the path of a directory without symbolic links.
func realPath(dir string) (string, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}
