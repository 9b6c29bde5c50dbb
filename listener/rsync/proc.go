package rsync

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// bytesRead sums what the processes of a session's leader's kind have read since they started: from the network, from disk, from each other.
// Reading is what counts, because rsync keeps writing small signs of life into a dead connection. Other programs of the session are left out:
// ssh reads keep-alives from a host whose rsync is stuck. known is false where /proc does not say.
func bytesRead(session int) (sum int64, known bool) {
	leader, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(session), "comm"))
	if err != nil {
		return 0, false
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, false
	}
	for _, d := range dirs {
		if d.Name()[0] < '0' || d.Name()[0] > '9' || !inSession(d.Name(), session) {
			continue
		}
		comm, err := os.ReadFile(filepath.Join("/proc", d.Name(), "comm"))
		if err != nil || !bytes.Equal(comm, leader) {
			continue
		}
		if n, ok := rchar(d.Name()); ok {
			sum, known = sum+n, true
		}
	}
	return sum, known
}

// inSession tells whether the process belongs to the session. See proc(5), /proc/pid/stat: the sixth field.
func inSession(pid string, session int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest) // state, ppid, pgrp, session
	return len(fields) > 3 && fields[3] == strconv.Itoa(session)
}

func rchar(pid string) (int64, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "io"))
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(text), "\n")
	n, err := strconv.ParseInt(strings.TrimPrefix(line, "rchar: "), 10, 64)
	return n, err == nil
}
