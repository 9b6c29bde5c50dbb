package watch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/fault"
)

// A chosen is a backend with why it was chosen.
type chosen struct {
	backend
	name, reason string
}

// choose opens the best backend that works, or the one that was asked for.
func (w *Watcher) choose(at *place) (chosen, error) {
	switch w.o.Backend {
	case Auto:
		return w.best(at)
	case Fanotify:
		f, err := openFanotify(at, w.o.smallQueue)
		return chosen{f, Fanotify, "as configured"}, fault.With(err, fault.Unavailable, "leave the backend at auto, or give the watcher CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH on a file system that can be marked")
	case Inotify:
		i, err := openInotify(at, w.o.Rules, w.o.maxWatches)
		return chosen{i, Inotify, "as configured"}, err
	case Scanning:
		return chosen{blind{}, Scanning, "as configured"}, nil
	}
	return chosen{}, fault.With(fmt.Errorf("backend %.40q is unknown", w.o.Backend), fault.Usage, "it is auto, fanotify, inotify or scan")
}

// best tries one after the other. What of them told too little once is not tried again. Where changes may come by another way than this kernel's, none is tried:
// that it can be marked, or watched, says nothing.
func (w *Watcher) best(at *place) (chosen, error) {
	if why := farAway(at.mount.kind); why != "" {
		return chosen{blind{}, Scanning, why}, nil
	}
	f, err := openFanotify(at, w.o.smallQueue)
	if err == nil {
		return chosen{f, Fanotify, "the whole file system is marked"}, nil
	}
	reason := err.Error()
	i, err := openInotify(at, w.o.Rules, w.o.maxWatches)
	if err == nil {
		return chosen{i, Inotify, reason}, nil
	}
	if fault.StatusOf(err) != fault.Unavailable {
		return chosen{}, err
	}
	w.log.Warn("the tree is scanned instead of watched", "path", at.root, "every", w.o.PollEvery, "reason", err, "hint", fault.HintOf(err))
	return chosen{blind{}, Scanning, errors.Join(errors.New(reason), err).Error()}, nil
}

// farAway says why a file system of this kind may change without this kernel knowing, "" if it may not.
func farAway(kind string) string {
	switch {
	case remote[kind]:
		return kind + " tells nothing of what other hosts change"
	case kind == "fuse" || strings.HasPrefix(kind, "fuse."):
		return kind + " tells nothing of what changes below it, or far away; if all is written here, and through it, set backend to inotify"
	}
	return ""
}

// remote are the file systems of the network, and those that several hosts have at the same time. Some of them can be marked.
var remote = map[string]bool{
	"nfs": true, "nfs4": true, "cifs": true, "smb3": true, "smbfs": true, "9p": true, "afs": true, "ceph": true, "lustre": true, "glusterfs": true, "virtiofs": true,
	"coda": true, "gfs2": true, "ocfs2": true, "orangefs": true, "gpfs": true, "beegfs": true,
}

// blind is the backend that hears of nothing.
type blind struct{}

func (blind) fd() int                    { return -1 }
func (blind) read(*intake) (bool, error) { return false, nil }
func (blind) close() error               { return nil }
