package listener_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/pace"
	"github.com/mirrorbus/mirrorbus/transports"
)

// disk mounts a file system that writes nothing by itself for five minutes, so that a copy of its image is what a power cut would leave.
func disk(t *testing.T, dir string) (image string) {
	t.Helper()
	testenv.NeedRoot(t)
	mkfs, mount := testenv.Need(t, "mkfs.ext4"), testenv.Need(t, "mount")
	image = filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(48 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mountImage(t, mount, image, dir)
	return image
}

func mountImage(t *testing.T, mount, image, dir string) {
	t.Helper()
	if out, err := exec.Command(mount, "-o", "loop,commit=300", image, dir).CombinedOutput(); err != nil {
		testenv.Unable(t, fmt.Sprintf("cannot mount an image: %v: %s", err, out))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// What a mirror says to have applied is there after a power cut the moment after.
func TestWhatIsAppliedIsOnDisk(t *testing.T) {
	w := newWorld(t)
	image := disk(t, filepath.Dir(w.dest))
	w.must(os.Mkdir(w.dest, 0o755))
	a := w.adopted(func(o *listener.Options) { o.Modules[0].NoExport = true }) // which syncs on its own account
	w.must(os.Mkdir(filepath.Join(w.up, "d"), 0o755))
	records := []event.Record{w.rec(event.Write, "d")}
	for i := range 50 {
		name := fmt.Sprintf("d/f%02d", i)
		w.write(testenv.File(name, strings.Repeat(name, 500)))
		records = append(records, w.rec(event.Write, name))
	}
	w.send(a, w.announce(records...))
	w.must(a.Reconcile(t.Context(), pub))
	if s := w.status(a); s.Applied != 2 {
		t.Fatalf("%+v", s)
	}
	cut, err := os.ReadFile(image)
	w.must(err)
	after := filepath.Join(t.TempDir(), "after")
	w.must(os.WriteFile(after, cut, 0o600))
	dir := t.TempDir()
	mountImage(t, testenv.Need(t, "mount"), after, dir)
	for _, r := range records[1:] {
		b, err := os.ReadFile(filepath.Join(dir, filepath.Base(w.dest), r.Path))
		if err != nil || string(b) != strings.Repeat(r.Path, 500) {
			t.Fatalf("%s is not there after a power cut: %d bytes, %v", r.Path, len(b), err)
		}
	}
}

// An announcement that could not be stored is not acknowledged: the transport may have the only copy.
func TestWhatCouldNotBeStoredIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	x := w.announce(w.rec(event.Write, "README"))
	w.must(a.Close())
	m := transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: string(pub)}, ID: "x", Body: x.body, From: "hub"}
	for what, body := range map[string][]byte{"announcement": x.body, "head": w.head()} {
		m.Body = body
		if err := a.Receiver("mem").Receive(t.Context(), m); err == nil {
			t.Errorf("the %s was acknowledged, though it is stored nowhere", what)
		}
	}
}

// A line counts on the topic of its own module alone: who may publish on one is not heard on another.
func TestALineCountsOnItsOwnTopicAlone(t *testing.T) {
	w := newWorld(t)
	a := w.adopted()
	before := w.status(a)
	x := w.announce(w.rec(event.Write, "README"))
	for what, body := range map[string][]byte{"announcement": x.body, "head": w.head()} {
		m := transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: "other"}, ID: "x", Body: body, From: "hub"}
		var refusal *transports.Refusal
		if err := a.Receiver("mem").Receive(t.Context(), m); !errors.As(err, &refusal) {
			t.Errorf("the %s is not refused for good: %v", what, err)
		}
		if s := w.status(a); s.Heard != before.Heard || s.Head != before.Head {
			t.Errorf("the %s was taken: %+v", what, s)
		}
	}
}

// What was spent of a budget stays spent, also over a restart: whatever messages say, the upstream is asked for no more.
func TestASpentBudgetStaysSpent(t *testing.T) {
	w := newWorld(t)
	clock := time.Now()
	w.now = func() time.Time { return clock }
	tight := func(o *listener.Options) {
		o.Modules[0].Budgets = pace.DefaultBudgets()
		o.Modules[0].Budgets["live"] = pace.Budget{Burst: 1, Every: time.Hour}
	}
	a := w.adopted(tight)
	send := func() error {
		w.write(testenv.File("f", fmt.Sprint("x", w.serial)))
		w.send(a, w.announce(w.rec(event.Write, "f")))
		return a.Reconcile(t.Context(), pub)
	}
	w.must(send())
	w.same(a, 2)
	var rate *listener.RateError
	if err := send(); !errors.As(err, &rate) || !rate.At.After(clock.Add(50*time.Minute)) {
		t.Errorf("with nothing left to spend: %v", err)
	}
	if s := w.status(a); s.Applied != 2 {
		t.Errorf("applied %d with nothing left to spend", s.Applied)
	}
	w.must(a.Close())
	a = w.agent(tight)
	w.must(noLimit(a.Reconcile(t.Context(), pub)))
	if s := w.status(a); s.Applied != 2 {
		t.Errorf("applied %d after a restart with nothing left to spend", s.Applied)
	}
	clock = clock.Add(time.Hour)
	w.must(a.Reconcile(t.Context(), pub))
	w.same(a, 3)
}

// Without a word about it in the configuration, mass deletions are held.
func TestDefaultsHoldMassDeletions(t *testing.T) {
	c := listener.Defaults()
	c.Grants = []listener.GrantConfig{{}}
	c.Modules = []listener.ModuleConfig{{Name: "m"}}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if m := c.Modules[0]; m.MaxDelete != 10_000 || m.MaxDeleteRatio != 0.2 {
		t.Errorf("at most %d names or a part of %v may be deleted", m.MaxDelete, m.MaxDeleteRatio)
	}
	w := newWorld(t)
	for i := range 40 {
		w.write(testenv.File(fmt.Sprintf("f%02d", i), "x"))
	}
	w.serial, w.last = 0, event.Digest{}
	w.announce(w.rec(event.Write, "f00"))
	a := w.adopted()
	var gone []event.Record
	for i := range 11 { // of 40, and a fifth is 8; up to ten may always go
		name := fmt.Sprintf("f%02d", i)
		w.must(os.Remove(filepath.Join(w.up, name)))
		gone = append(gone, w.rec(event.Gone, name))
	}
	w.send(a, w.announce(gone...))
	if err := a.Reconcile(t.Context(), pub); err == nil || w.status(a).State != listener.Held {
		t.Errorf("not held: %v, %+v", err, w.status(a))
	}
}
