package crash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// An announcement is a request in the making, with the states that it announces.
type announcement struct {
	w      *world
	names  []trigger.Name
	states map[string]string
}

func (w *world) announcement() *announcement {
	return &announcement{w: w, states: map[string]string{}}
}

// file writes a file and names it.
func (a *announcement) file(path string, version int) *announcement {
	a.w.t.Helper()
	a.w.write(path, version)
	a.names, a.states[path] = append(a.names, trigger.Name{Path: path}), fmt.Sprint("version ", version)
	return a
}

// remove removes a file and names it.
func (a *announcement) remove(path string) *announcement {
	a.w.t.Helper()
	must(a.w.t, os.Remove(filepath.Join(a.w.tree(), path)))
	a.names, a.states[path] = append(a.names, trigger.Name{Op: event.Gone, Path: path}), gone
	return a
}

func (a *announcement) publish() error {
	return a.w.publish(trigger.NewRequest(module, a.names), a.states)
}

// turn makes changes of every kind, announces each and lets the mirror take it. Its error says that a daemon does not answer: it is dead.
func (w *world) turn() error {
	w.turns++
	for _, step := range []func(int) error{w.release, w.tidy, w.embargo, w.flip, w.rebuild} {
		if err := step(w.turns); err != nil {
			return err
		}
	}
	return nil
}

// release brings a new file, a changed one and the index that names them.
func (w *world) release(n int) error {
	return w.announcement().file(fmt.Sprintf("pool/new-%d", n), n).file("pool/base-0", n).file("dists/index", n).publish()
}

// tidy removes a file and renames a directory.
func (w *world) tidy(n int) error {
	a := w.announcement()
	from, to := fmt.Sprintf("moving-%d", w.moved), fmt.Sprintf("moving-%d", w.moved+1)
	must(w.t, os.Rename(filepath.Join(w.tree(), from), filepath.Join(w.tree(), to)))
	a.names = append(a.names, trigger.Name{Op: event.Renamed, Path: to, From: from})
	a.states[from+"/file"], a.states[to+"/file"] = gone, "version 0"
	w.moved++
	if old := fmt.Sprintf("pool/new-%d", n-1); stateOf(w.tree(), old) != gone {
		a.remove(old)
	}
	if err := a.publish(); err != nil {
		return err
	}
	return w.taken()
}

// embargo brings content that nobody may see yet.
func (w *world) embargo(n int) error {
	vault := fmt.Sprintf("vault-%d", n)
	w.write(vault+"/file", n)
	must(w.t, os.Chmod(filepath.Join(w.tree(), vault), 0o700))
	a := w.announcement()
	a.names = append(a.names, trigger.Name{Op: event.Tree, Path: vault})
	a.states[vault+"/file"], a.states[vault] = fmt.Sprint("version ", n), "mode 700"
	if err := a.publish(); err != nil {
		return err
	}
	return w.taken()
}

// flip releases it.
func (w *world) flip(n int) error {
	vault := fmt.Sprintf("vault-%d", n)
	must(w.t, os.Chmod(filepath.Join(w.tree(), vault), 0o755))
	r := trigger.NewRequest(module, []trigger.Name{{Op: event.Meta, Path: vault}})
	r.Flip = true
	if err := w.publish(r, map[string]string{vault: "mode 755"}); err != nil {
		return err
	}
	return w.taken()
}

// rebuild has the hub walk the tree and export its manifest, which the mirror carries on.
func (w *world) rebuild(int) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	err := w.client("ms").Stream(ctx, "POST", "/v1/manifest?module="+module, func(json.RawMessage) error { return nil })
	if err != nil {
		return err
	}
	return w.taken()
}

var errDead = errors.New("a daemon is dead")

// taken waits until the mirror has what was announced, or a daemon is dead.
func (w *world) taken() error {
	deadline := time.Now().Add(bound)
	for {
		if w.hub.dead() || w.agent.dead() {
			return errDead
		}
		err := w.settled()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not taken: %w", err)
		}
		select {
		case <-w.hub.done:
		case <-w.agent.done:
		case <-time.After(short / 2):
		}
	}
}
