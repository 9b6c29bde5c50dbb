package rsync

import (
	"strings"
)

// classify turns an exit status and what was said into a class, "" for success. It follows the table of rsync(1), corrected by what the
// statuses are really used for: 5 and 10 say nothing without their text.
func classify(code int, said string, paths []PathError) Class {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(said, w) {
				return true
			}
		}
		return false
	}
	full := has("No space left on device", "Disk quota exceeded")
	held := has("due to --max-delete limit") // rsync's status tells this last: 23 and 24 hide 25
	switch code {
	case 0:
		return partial(paths, full, false, "")
	case 2:
		if has(noBasis) {
			return Interrupted
		}
	case 4:
		if has("rejecting unrequested file-list name", "rejecting excluded file-list name") {
			return Unrequested
		}
	case 5, 10:
		return refused(has)
	case 11:
		if full {
			return DiskFull
		}
	case 12:
		if has("has been disabled on this server", "unknown option") {
			return Permanent
		}
		if has("(0 bytes received so far)") {
			return unreached(has) // the shell has ended, but not been waited for yet: rsync tells its status only from then on
		}
		return Interrupted
	case 19, 20, 21, 22, -1:
		return Interrupted
	case 23:
		return partial(paths, full, held, Partial)
	case 24:
		if held {
			return MaxDelete
		}
		return Vanished
	case 25:
		return MaxDelete
	case 30, 35:
		return Timeout
	case 255:
		return unreached(has)
	}
	return Permanent
}

// noBasis is what rsync 3.5.0 says where two files went on from one beginning. Older ones call the second one's content wrong.
const noBasis = "got a block match with no basis file"

// unreached classifies what the remote shell said that did not come through to the upstream.
func unreached(has func(...string) bool) Class {
	if has("Permission denied", "Host key verification failed", "REMOTE HOST IDENTIFICATION") {
		return Auth
	}
	return Unavailable
}

// refused classifies what a daemon, or the way to it, said before the transfer.
func refused(has func(...string) bool) Class {
	switch {
	case has("max connections", "Connection refused"):
		return Busy
	case has("auth failed on module", "Unknown module", "access denied to", "Permission denied (publickey", "Host key verification failed"):
		return Auth
	case has("configured to refuse"):
		return Permanent
	}
	return Unavailable
}

// partial classifies a run some of whose paths failed.
func partial(paths []PathError, full, held bool, otherwise Class) Class {
	onlyHeld := true
	for _, p := range paths {
		if p.Kind == NoSpace || p.Local && full {
			return DiskFull
		}
		onlyHeld = onlyHeld && p.Kind == InTheWay
	}
	switch {
	case held || onlyHeld && len(paths) > 0:
		return MaxDelete
	case len(paths) > 0:
		return Partial
	}
	return otherwise
}
