package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// An inEvent is one event of inotify(7).
type inEvent struct {
	wd           int32
	mask, cookie uint32
	name         []byte // part of the buffer that was decoded; empty for the directory itself
}

// decodeIn calls each for every event in buf, as read(2) filled it. What is not as the kernel writes it is an error, and ends it.
func decodeIn(buf []byte, each func(inEvent)) error {
	for at := 0; len(buf) > 0; {
		if len(buf) < unix.SizeofInotifyEvent {
			return fmt.Errorf("event at byte %d: cut short, %d bytes", at, len(buf))
		}
		n := uint64(binary.NativeEndian.Uint32(buf[12:]))
		if n > uint64(len(buf)-unix.SizeofInotifyEvent) {
			return fmt.Errorf("event at byte %d: name of %d bytes in %d", at, n, len(buf))
		}
		size := unix.SizeofInotifyEvent + int(n)
		ev := inEvent{wd: int32(binary.NativeEndian.Uint32(buf)), mask: binary.NativeEndian.Uint32(buf[4:]), cookie: binary.NativeEndian.Uint32(buf[8:])}
		name, _, ok := bytes.Cut(buf[unix.SizeofInotifyEvent:size], []byte{0})
		if n > 0 && !ok || bytes.IndexByte(name, '/') >= 0 || string(name) == "." || string(name) == ".." {
			return fmt.Errorf("event at byte %d: name %.40q", at, name)
		}
		ev.name = name
		each(ev)
		at, buf = at+size, buf[size:]
	}
	return nil
}
