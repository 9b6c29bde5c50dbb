package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// A fanEvent is one event of fanotify(7).
type fanEvent struct {
	mask     uint64
	at       dirName // where it happened
	from, to dirName // of a rename; either may be missing, where the other side is out of sight
}

// A dirName is a name in a directory that is given as a file handle. They are parts of the buffer that was decoded.
type dirName struct {
	handle []byte // file system, type and handle, as one key; nil if there is none
	name   []byte // "." is the directory itself
}

// Sizes and offsets of the structures in linux/fanotify.h.
const (
	fanMetaLen   = unix.FAN_EVENT_METADATA_LEN
	fanVersion   = 3
	fanInfoLen   = 4                 // type, padding, length
	fanFsidLen   = 8                 // of the file system
	fanHandleLen = fanFsidLen + 8    // and size and type of the handle
	maxHandle    = 128               // MAX_HANDLE_SZ
	maxName      = 255               // NAME_MAX; some file systems have more bytes
	maxFanName   = 4 * (maxName + 1) // so this is what is believed
)

// decodeFan calls each for every event in buf, as read(2) filled it. What is not as the kernel writes it is an error, and ends it.
func decodeFan(buf []byte, each func(fanEvent)) error {
	for at := 0; len(buf) > 0; {
		if len(buf) < fanMetaLen {
			return fmt.Errorf("event at byte %d: cut short, %d bytes", at, len(buf))
		}
		size, meta := int(binary.NativeEndian.Uint32(buf)), int(binary.NativeEndian.Uint16(buf[6:]))
		if buf[4] != fanVersion {
			return fmt.Errorf("event at byte %d: version %d, not %d", at, buf[4], fanVersion)
		}
		if meta < fanMetaLen || size < meta || size > len(buf) {
			return fmt.Errorf("event at byte %d: %d bytes, %d of them metadata, in %d", at, size, meta, len(buf))
		}
		ev := fanEvent{mask: binary.NativeEndian.Uint64(buf[8:])}
		if err := ev.decodeInfo(buf[meta:size]); err != nil {
			return fmt.Errorf("event at byte %d: %w", at, err)
		}
		each(ev)
		at, buf = at+size, buf[size:]
	}
	return nil
}

// decodeInfo reads the records that follow an event's metadata. Those of unknown kinds are passed over.
func (ev *fanEvent) decodeInfo(buf []byte) error {
	for len(buf) > 0 {
		if len(buf) < fanInfoLen {
			return fmt.Errorf("information of %d bytes", len(buf))
		}
		kind, size := buf[0], int(binary.NativeEndian.Uint16(buf[2:]))
		if size < fanInfoLen || size > len(buf) {
			return fmt.Errorf("information of %d bytes in %d", size, len(buf))
		}
		var err error
		switch body := buf[fanInfoLen:size]; kind {
		case unix.FAN_EVENT_INFO_TYPE_DFID_NAME:
			ev.at, err = decodeDirName(body)
		case unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
			ev.from, err = decodeDirName(body)
		case unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
			ev.to, err = decodeDirName(body)
		}
		if err != nil {
			return err
		}
		buf = buf[size:]
	}
	return nil
}

func decodeDirName(b []byte) (dirName, error) {
	if len(b) < fanHandleLen {
		return dirName{}, fmt.Errorf("handle of %d bytes", len(b))
	}
	n := int(binary.NativeEndian.Uint32(b[fanFsidLen:]))
	if n == 0 || n > maxHandle || fanHandleLen+n > len(b) {
		return dirName{}, fmt.Errorf("handle of %d bytes in %d", n, len(b))
	}
	name, _, ok := bytes.Cut(b[fanHandleLen+n:], []byte{0})
	if !ok || len(name) == 0 || len(name) > maxFanName || bytes.IndexByte(name, '/') >= 0 || string(name) == ".." {
		return dirName{}, fmt.Errorf("name %.40q", b[fanHandleLen+n:])
	}
	return dirName{handle: b[:fanHandleLen+n], name: name}, nil
}

// fileHandle is the handle in a key, for open_by_handle_at(2).
func fileHandle(key []byte) unix.FileHandle {
	return unix.NewFileHandle(int32(binary.NativeEndian.Uint32(key[fanFsidLen+4:])), key[fanHandleLen:])
}
