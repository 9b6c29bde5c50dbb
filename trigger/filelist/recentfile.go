package filelist

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// A head is what a window's file says of itself, and its events if it is to be written.
type head struct {
	interval, dirtymark string
	max, min            string // epochs; "" for none
	into, merged        string // the window that holds this one's events up to an epoch
	written             time.Time
	events              []happening
}

// write writes the file as YAML::Syck reads it. All that is not a plain word is quoted, since a path may be anything.
func (h head) write(w *bufio.Writer) {
	fmt.Fprint(w, "---\nmeta:\n  aggregator:\n")
	for _, other := range windows[1:] {
		fmt.Fprintf(w, "    - %s\n", other.name)
	}
	fmt.Fprintf(w, "  canonize: naive_path_normalize\n  comment: from the announcements of mirrorbus\n  dirtymark: %q\n  filenameroot: RECENT\n  interval: %s\n", h.dirtymark, h.interval)
	if h.into != "" {
		fmt.Fprintf(w, "  merged:\n    epoch: %q\n    into_interval: %s\n", h.merged, h.into)
	}
	if h.max != "" {
		fmt.Fprintf(w, "  minmax:\n    max: %q\n    min: %q\n", h.max, h.min)
	}
	fmt.Fprint(w, "  protocol: 1\n  serializer_suffix: .yaml\n")
	if len(h.events) == 0 {
		fmt.Fprint(w, "recent: []\n")
		return
	}
	fmt.Fprint(w, "recent:\n")
	var line []byte
	for _, e := range h.events {
		line = append(append(append(line[:0], "  -\n    epoch: \""...), e.epoch...), "\"\n    path: "...)
		line = append(quote(line, e.path), "\n    type: "...)
		if e.gone {
			line = append(line, "delete\n"...)
		} else {
			line = append(line, "new\n"...)
		}
		_, _ = w.Write(line) // what cannot be written is seen when w is flushed
	}
}

// quote appends a YAML scalar in double quotes. Bytes from 0x80 on stay as they are, which is what a client puts to rsync.
func quote(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = fmt.Appendf(b, `\x%02x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// maxHead is how much of a file is read for its head, in bytes.
const maxHead = 4096

// readHead reads what a file in place says of itself, as far as it decides what is written: nothing if it is missing or somebody else's.
func readHead(root *os.Root, name string) (h head, err error) {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	f, err := root.Open(name)
	if err != nil {
		return head{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxHead))
	if err != nil {
		return head{}, err
	}
	return parseHead(string(b), info.ModTime()), nil
}

func parseHead(text string, written time.Time) head {
	h := head{written: written}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		switch {
		case line == "recent:\n":
			return h
		case key == "max":
			h.max = value
		case key == "dirtymark":
			h.dirtymark = value
		case key == "interval":
			h.interval = value
		}
	}
	return h
}
