package watch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// anEvent writes an event as the kernel does.
func anEvent(mask uint64, infos ...[]byte) []byte {
	b := make([]byte, fanMetaLen)
	for _, i := range infos {
		b = append(b, i...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = fanVersion
	binary.NativeEndian.PutUint16(b[6:], fanMetaLen)
	binary.NativeEndian.PutUint64(b[8:], mask)
	return b
}

func anInfo(kind byte, handle, name string) []byte {
	b := make([]byte, fanInfoLen+fanHandleLen)
	b[0] = kind
	binary.NativeEndian.PutUint32(b[fanInfoLen+fanFsidLen:], uint32(len(handle)))
	b = append(b, handle+name+"\x00"...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func TestDecodeFan(t *testing.T) {
	rename := anEvent(unix.FAN_RENAME|unix.FAN_ONDIR, anInfo(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "handle-1", "old"), anInfo(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "handle-2", "new"))
	two := slices.Concat(anEvent(unix.FAN_CREATE, anInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle-1", "in\xff\xfevalid\n")), rename, anEvent(unix.FAN_Q_OVERFLOW))
	var got []string
	if err := decodeFan(two, func(e fanEvent) {
		got = append(got, fmt.Sprintf("%x %q %q %q", e.mask, e.at.name, e.from.name, e.to.name))
	}); err != nil {
		t.Error(err)
	}
	if want := []string{`100 "in\xff\xfevalid\n" "" ""`, `50000000 "" "old" "new"`, `4000 "" "" ""`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	change := func(at int, to ...byte) []byte {
		b := slices.Clone(rename)
		copy(b[at:], to)
		return b
	}
	info := fanMetaLen
	for name, bad := range map[string][]byte{
		"cut short":               rename[:len(rename)-1],
		"cut in the metadata":     rename[:10],
		"an unknown version":      change(4, 9),
		"a length of nothing":     change(0, 0, 0, 0, 0),
		"metadata beyond it":      change(6, 0xff, 0xff),
		"metadata of nothing":     change(6, 0, 0),
		"information of nothing":  change(info+2, 0, 0),
		"information beyond it":   change(info+2, 0xff, 0xff),
		"a handle of nothing":     change(info+fanInfoLen+fanFsidLen, 0, 0, 0, 0),
		"a handle beyond it":      change(info+fanInfoLen+fanFsidLen, 0xff, 0xff, 0xff, 0x7f),
		"no name":                 anEvent(1, anInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle-1", "")),
		"a name with a slash":     anEvent(1, anInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle-1", "../etc")),
		"the name of the parent":  anEvent(1, anInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle-1", "..")),
		"a name that is too long": anEvent(1, anInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle-1", strings.Repeat("n", 2000))),
	} {
		if err := decodeFan(bad, func(fanEvent) {}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzFanEvents(f *testing.F) {
	f.Add(anEvent(unix.FAN_CREATE, anInfo(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "handle-1", "name")))
	f.Add(anEvent(unix.FAN_RENAME, anInfo(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "handle-1", "old"), anInfo(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "h", "new")))
	f.Add(anEvent(unix.FAN_Q_OVERFLOW))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = decodeFan(b, func(e fanEvent) { // most is refused
			for _, n := range []dirName{e.at, e.from, e.to} {
				if n.handle == nil {
					continue
				}
				if h := fileHandle(n.handle); h.Size() == 0 || h.Size() > maxHandle || len(n.name) == 0 || bytes.ContainsAny(n.name, "/\x00") {
					t.Errorf("handle of %d bytes, name %q", h.Size(), n.name)
				}
			}
		})
	})
}

func inBytes(wd int32, mask, cookie uint32, name string) []byte {
	padded := name
	if name != "" {
		padded += strings.Repeat("\x00", 16-len(name)%16)
	}
	b := make([]byte, unix.SizeofInotifyEvent)
	binary.NativeEndian.PutUint32(b, uint32(wd))
	binary.NativeEndian.PutUint32(b[4:], mask)
	binary.NativeEndian.PutUint32(b[8:], cookie)
	binary.NativeEndian.PutUint32(b[12:], uint32(len(padded)))
	return append(b, padded...)
}

func TestDecodeIn(t *testing.T) {
	all := slices.Concat(inBytes(1, unix.IN_CREATE, 0, "in\xff\xfevalid\n"), inBytes(2, unix.IN_MOVED_TO|unix.IN_ISDIR, 7, "new"), inBytes(-1, unix.IN_Q_OVERFLOW, 0, ""))
	var got []string
	if err := decodeIn(all, func(e inEvent) { got = append(got, fmt.Sprintf("%d %x %d %q", e.wd, e.mask, e.cookie, e.name)) }); err != nil {
		t.Error(err)
	}
	if want := []string{`1 100 0 "in\xff\xfevalid\n"`, `2 40000080 7 "new"`, `-1 4000 0 ""`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, bad := range map[string][]byte{
		"cut short": all[:len(all)-1], "cut in the name": all[:20], "a name with a slash": inBytes(1, 1, 0, "a/b"), "the parent": inBytes(1, 1, 0, ".."),
	} {
		if err := decodeIn(bad, func(inEvent) {}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzInEvents(f *testing.F) {
	f.Add(inBytes(1, unix.IN_CREATE, 0, "name"))
	f.Add(inBytes(-1, unix.IN_Q_OVERFLOW, 0, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = decodeIn(b, func(e inEvent) { // most is refused
			if bytes.ContainsAny(e.name, "/\x00") {
				t.Errorf("name %q", e.name)
			}
		})
	})
}

const someMounts = `21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 21 0:26 / /srv rw - tmpfs none rw
31 30 8:1 /sub /srv/a\040b rw shared:1 master:2 - ext4 /dev/sda1 rw
32 30 8:2 / /srv/fedora rw - xfs /dev/sdb rw
33 30 0:30 / /srv/fedora rw - nfs4 host:/x rw
`

func TestMounts(t *testing.T) {
	all, err := parseMounts(someMounts)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/": "21 / / ext4 /dev/vda", "/etc": "21 / / ext4 /dev/vda", "/srv": "30 /srv / tmpfs none", "/srv/x": "30 /srv / tmpfs none", "/srvx": "21 / / ext4 /dev/vda",
		"/srv/a b/c": "31 /srv/a b /sub ext4 /dev/sda1", "/srv/fedora/pool": "33 /srv/fedora / nfs4 host:/x",
	} {
		m := covering(all, path)
		if got := strings.Join([]string{m.id, m.point, m.root, m.kind, m.source}, " "); got != want {
			t.Errorf("%s lies on %q, want %q", path, got, want)
		}
	}
	for _, bad := range []string{"x", "1 2 3 4 5 6 - ", "21 1 254:0 / / rw - ext4"} {
		if _, err := parseMounts(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzMounts(f *testing.F) {
	f.Add(someMounts)
	f.Add(`1 1 1:1 /\134\012 /\999 rw - a b c`)
	f.Fuzz(func(_ *testing.T, text string) {
		if all, err := parseMounts(text); err == nil {
			covering(all, "/srv/fedora")
		}
	})
}
