package amqp_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// A reading is a master that publishes and a mirror of the stream that comes and goes, each time as a new process with the same store.
type reading struct {
	*site
	master, mirror *member
	heard          []string // by all processes so far
}

func newReading(t *testing.T) *reading {
	t.Helper()
	s := newSite(t, amqp.DefaultTopology())
	r := &reading{site: s, master: s.member(&member{role: transports.Master, name: "master"}).run()}
	r.master.await(0)
	return r
}

func (r *reading) publish(ids ...string) {
	r.t.Helper()
	for _, id := range ids {
		if err := r.master.transport.Publish(r.t.Context(), r.master.message(id)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// comes starts the mirror.
func (r *reading) comes() {
	r.t.Helper()
	r.mirror = r.member(&member{role: transports.Mirror, name: "mirror"}).run()
	r.mirror.await(0)
}

// hears publishes a last message and expects that the mirror has received all of ids, and then that one, each once.
func (r *reading) hears(ids ...string) {
	r.t.Helper()
	last := "last-" + string(rune('a'+len(r.heard)))
	r.heard = append(r.heard, last)
	r.publish(last)
	if n := r.mirror.gets(append(slices.Clone(ids), last)...); n > 0 {
		r.t.Errorf("%d came twice", n)
	}
}

// counted is what the mirror's transport has counted under a name.
func (r *reading) counted(name string, want uint64) {
	r.t.Helper()
	if got := r.mirror.transport.(interface{ Counters() map[string]uint64 }).Counters()[name]; got != want {
		r.t.Errorf("%s is %d, want %d", name, got, want)
	}
}

// remake deletes the log and makes it anew, and connects the master again.
func (r *reading) remake(args map[string]any) {
	r.t.Helper()
	r.node.API(http.MethodDelete, "/api/queues/"+r.vhost+"/mb.log", nil, nil)
	if args == nil {
		r.repair()
		return
	}
	args["x-queue-type"] = "stream"
	r.node.API(http.MethodPut, "/api/queues/"+r.vhost+"/mb.log", map[string]any{"durable": true, "arguments": args}, nil)
	r.node.API(http.MethodPost, "/api/bindings/"+r.vhost+"/e/mb.announce/q/mb.log", map[string]any{"routing_key": "announce.#"}, nil)
}

func TestFirstRunOfAnEmptyLog(t *testing.T) {
	t.Parallel()
	r := newReading(t)
	r.comes()
	ids := numbered("new", 5)
	r.publish(ids...)
	r.hears(ids...)
}

// What was published before the mirror was first there is none of its business, but for what happens to be in the last block of the log.
func TestFirstRunOfALongLog(t *testing.T) {
	t.Parallel()
	r := newReading(t)
	old := numbered("old", 50)
	r.publish(old...)
	ch := r.channel()
	testenv.WaitFor(t, patience, func() error { // the broker counts a log's messages now and then
		q, err := ch.QueueDeclarePassive("mb.log", true, false, false, false, nil)
		if err == nil && q.Messages < len(old) {
			err = fmt.Errorf("it holds %d", q.Messages)
		}
		return err
	})
	r.comes()
	r.publish("new-1", "new-2")
	r.mirror.getsAll("new-1", "new-2")
	got := r.mirror.received()
	fresh := slices.Index(got, "new-1")
	if fresh > len(old)/2 || !slices.Equal(got[:fresh], old[len(old)-fresh:]) || !slices.Equal(got[fresh:], []string{"new-1", "new-2"}) {
		t.Errorf("received %q, want the last of what was there and then what is new", got)
	}
}

func TestPositionIsKept(t *testing.T) {
	t.Parallel()
	r := newReading(t)
	r.comes()
	r.hears()
	for _, round := range []string{"first", "second", "third"} {
		r.mirror.close()
		away := numbered(round, 30)
		r.publish(away...)
		r.comes()
		r.hears(away...)
		r.counted("streams_remade", 0)
		r.counted("gaps", 0)
	}
}

// A position that nothing was ever received at is one, too: the log was empty and is not any more.
func TestPositionInAnEmptyLog(t *testing.T) {
	t.Parallel()
	r := newReading(t)
	r.comes()
	r.mirror.close()
	away := numbered("away", 3)
	r.publish(away...)
	r.comes()
	r.hears(away...)
}

func TestLogMadeAnew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before int // messages in the old log
		after  int // and in the new one
	}{
		{"empty", 10, 0},
		{"shorter", 10, 3},
		{"as long", 5, 6}, // a last one is sent before
		{"longer", 5, 40},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newReading(t)
			r.comes()
			r.publish(numbered("old", c.before)...)
			r.hears(numbered("old", c.before)...)
			r.mirror.close()
			r.remake(nil)
			away := numbered("away", c.after)
			r.publish(away...)
			r.comes()
			r.hears(away...)
			r.counted("streams_remade", 1)
			r.mirror.close()

			more := numbered("more", 4) // the new position is a position in the new log
			r.publish(more...)
			r.comes()
			r.hears(more...)
			r.counted("streams_remade", 0)
		})
	}
}

// The broker forgets the oldest blocks of a log that is too large. A mirror that was there goes on with what there is, and says so.
func TestPositionTooOld(t *testing.T) {
	t.Parallel()
	r := newReading(t)
	r.remake(map[string]any{"x-stream-max-segment-size-bytes": 2000, "x-max-length-bytes": 6000})
	r.comes()
	r.hears()
	r.mirror.close()
	away := numbered("away", 300)
	r.publish(away...)
	r.comes()
	r.publish("new")
	r.mirror.getsAll("new")
	got := r.mirror.received()
	first := slices.Index(away, got[0])
	if first < 1 || !slices.Equal(got, append(slices.Clone(away[first:]), "new")) {
		t.Errorf("received %d messages, the first of them %q, want the end of what was published, in order", len(got), got[0])
	}
	r.counted("gaps", 1)
	r.counted("streams_remade", 0)
}
