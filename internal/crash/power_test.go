package crash_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/failpoint"
	"github.com/mirrorbus/mirrorbus/internal/sqlite"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// burst announces a number of new and changed files, and removes older ones.
func (w *world) burst() error {
	w.turns++
	a := w.announcement().file("pool/base-0", w.turns).file("dists/index", w.turns)
	for i := range 8 {
		a.file(fmt.Sprintf("pool/b%d-%d", w.turns, i), w.turns)
		if old := fmt.Sprintf("pool/b%d-%d", w.turns-20, i); stateOf(w.tree(), old) != gone {
			a.remove(old)
		}
	}
	return a.publish()
}

// cut has the disk of a daemon lose its power, after some time of work. Both are as they were at that moment.
func (w *world) cut(d *disk, p *process, after time.Duration) {
	w.t.Helper()
	done := make(chan error, 1)
	go func() {
		p.await(after)
		err := p.signal(syscall.SIGSTOP)
		p.await(20 * time.Millisecond) // what was on its way to the disk arrives
		done <- errors.Join(err, d.freeze(), p.kill())
	}()
	for !p.dead() {
		if err := errors.Join(w.again(), w.burst()); err != nil && !p.dead() {
			p.await(short)
		}
	}
	must(w.t, <-done)
}

// someTime is how long a daemon works before the power fails.
func someTime(rng *rand.Rand) time.Duration {
	return 300*time.Millisecond + time.Duration(rng.Int64N(int64(1200*time.Millisecond)))
}

// What publish returned, and what mirrors were told, is in the journal after a power cut; so no serial is used again. Nor is a report lost whose
// sender was told that it arrived.
func TestPowerCutOnTheHub(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	times, _ := rounds(t)
	d := newDisk(t)
	w := newWorld(t, d.mount, t.TempDir())
	w.begin()
	rng := rand.New(rand.NewPCG(1, 1))
	for range times {
		must(t, errors.Join(w.agent.stop(), w.agent.start())) // so that it does not wait long for the hub because of earlier rounds
		w.cut(d, w.hub, someTime(rng))
		w.restoreTree(d.thaw)
		for _, l := range w.lost() {
			t.Error(l)
		}
		must(t, w.hub.start())
		w.retry()
		w.current()
	}
	t.Logf("%d power cuts, %d announcements acknowledged", times, len(w.acked))
}

// restoreTree gives the master's tree back what the power cut took: that is its owner's, who makes the release again. The export stays as it is.
func (w *world) restoreTree(thaw func()) {
	w.t.Helper()
	same := []string{"-a", "--delete", "--exclude=/.mirrorbus"}
	safe := w.t.TempDir()
	must(w.t, run("rsync", append(same, w.tree()+"/", safe+"/")...))
	thaw()
	must(w.t, run("rsync", append(same, safe+"/", w.tree()+"/")...))
}

// aside opens a copy of a database that was cut off, so that looking changes nothing.
func (w *world) aside(file string) (*sql.DB, error) {
	dir := w.t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(file + suffix)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "db"+suffix), b, 0o600)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return sqlite.Open(w.t.Context(), filepath.Join(dir, "db"), sqlite.Options{})
}

// lost lists what publish returned and the journal on the disk does not have.
func (w *world) lost() []string {
	w.t.Helper()
	db, err := w.aside(filepath.Join(w.master, "state", "journal.db"))
	must(w.t, err)
	defer db.Close() //nolint:errcheck // a copy
	var out []string
	for serial, line := range w.acked {
		var has string
		if err := db.QueryRow("SELECT line FROM entry WHERE serial = ?", serial).Scan(&has); err != nil || has != line {
			out = append(out, fmt.Sprintf("publish returned serial %d, and the disk has %q of it: %v", serial, has, err))
		}
	}
	slices.Sort(out)
	return out
}

// claimed is the serial up to which the mirror's database on the disk says that everything is applied.
func (w *world) claimed() event.Serial {
	w.t.Helper()
	db, err := w.aside(filepath.Join(w.inbox(), "state.db"))
	must(w.t, err)
	defer db.Close() //nolint:errcheck // a copy
	var n event.Serial
	must(w.t, db.QueryRow("SELECT applied FROM module WHERE name = ?", module).Scan(&n))
	return n
}

// What the mirror's database calls applied, and what it has reported, is on its disk after a power cut.
func TestPowerCutOnTheMirror(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	times, _ := rounds(t)
	d := newDisk(t)
	w := newWorld(t, t.TempDir(), d.mount)
	w.begin()
	rng := rand.New(rand.NewPCG(2, 2))
	var behind []event.Serial
	for range times {
		w.cut(d, w.agent, someTime(rng))
		w.retry()
		must(t, w.watch())
		d.thaw()
		claim := max(w.claimed(), w.reported)
		for _, m := range w.history.missing(w.copy(), claim) {
			t.Errorf("claimed is serial %d (reported %d): %s", claim, w.reported, m)
		}
		h, err := w.hubStatus()
		must(t, err)
		behind = append(behind, h.Serial-claim)
		w.rested()
		must(t, w.agent.start())
		w.current()
	}
	t.Logf("%d power cuts, serials not applied when the power failed: %v", times, behind)
}

// A test that cannot fail shows nothing: without syncfs content is missing after a power cut that was called applied.
func TestPowerCutFindsMissingSyncfs(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	d := newDisk(t)
	w := newWorld(t, t.TempDir(), d.mount)
	w.begin()
	must(t, w.agent.stop())
	must(t, w.agent.start(failpoint.EnvLeftOut+"="+string(failpoint.Syncfs)))
	for i := range 5 {
		w.cut(d, w.agent, time.Second)
		w.retry()
		must(t, w.watch())
		d.thaw()
		claim := max(w.claimed(), w.reported)
		if missing := w.history.missing(w.copy(), claim); len(missing) > 0 {
			t.Logf("power cut %d: %d of what serial %d says is missing, as %s", i+1, len(missing), claim, missing[0])
			return
		}
		must(t, w.agent.start(failpoint.EnvLeftOut+"="+string(failpoint.Syncfs)))
		testenv.WaitFor(t, bound, w.settled)
	}
	t.Error("five power cuts without syncfs, and nothing is missing")
}

// Likewise, without synchronous commits announcements are missing that publish has returned.
func TestPowerCutFindsMissingCommits(t *testing.T) {
	testenv.NeedRoot(t)
	t.Parallel()
	d := newDisk(t)
	w := newWorld(t, d.mount, t.TempDir())
	w.begin()
	must(t, w.hub.stop())
	must(t, w.hub.start(failpoint.EnvLeftOut+"="+string(failpoint.Durable)))
	w.cut(d, w.hub, time.Second)
	d.thaw()
	lost := w.lost()
	if len(lost) == 0 {
		t.Fatal("a power cut with synchronous=OFF, and nothing is lost")
	}
	t.Logf("%d of %d lost, as %.200s", len(lost), len(w.acked), lost[0])
}
