package transporttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/transports"
)

// bodyUnchanged sends bodies that careless encoding, line handling or escaping would change, both ways.
func bodyUnchanged(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	down := trickyBodies(w.h.Driver.Capabilities(transports.Master).MaxBody)
	if err := master.sendsExactly(ctx, announce("fedora"), down, mirror); err != nil || w.polled() {
		return err
	}
	up := trickyBodies(w.h.Driver.Capabilities(transports.Mirror).MaxBody)
	return mirror.sendsExactly(ctx, report("fedora"), up, master)
}

// trickyBodies returns bodies of at most limit bytes, all different.
func trickyBodies(limit int) []string {
	bodies := []string{
		"x", " ", "\n", "\x00", "\xff", ".",
		"two\nlines", "dos\r\nlines\r\n", "ends in blanks \t ", " begins with one", "\r\n.\r\n", ".\r\n", "..x",
		"From me\nFrom you\n", "~.\n", "=20=\n=3D", "%00%0a\\0\\n", `{"a":"b"}`, "NUL \x00 inside", "\xef\xbb\xbfmark", "\xc3\x28 is not UTF-8",
		"é and e\u0301", "\x01ACTION waves\x01", "--boundary--\r\n", strings.Repeat("=", 80), strings.Repeat("a b ", 50),
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for part := range slices.Chunk(every, min(256, max(limit, 1))) {
		bodies = append(bodies, string(part))
	}
	fits := func(s string) bool { return len(s) <= limit }
	return slices.Compact(slices.Sorted(slices.Values(slices.DeleteFunc(bodies, func(s string) bool { return !fits(s) }))))
}

// largestBody sends bytes that do not compress, so that the limit holds for any content.
func largestBody(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if err := largestFrom(ctx, w.h.Driver.Capabilities(transports.Master), master, announce("fedora"), mirror); err != nil || w.polled() {
		return err
	}
	return largestFrom(ctx, w.h.Driver.Capabilities(transports.Mirror), mirror, report("fedora"), master)
}

func largestFrom(ctx context.Context, c transports.Capabilities, from *peer, t transports.Topic, to *peer) error {
	random := rand.New(rand.NewPCG(1, 2))
	body := make([]byte, c.MaxBody+1)
	for i := range body {
		body[i] = byte(random.Uint32())
	}
	if err := from.Publish(ctx, message(t, string(body))); !errors.Is(err, transports.ErrTooLarge) {
		return fmt.Errorf("%s: publish of %d bytes, one more than MaxBody: error is %w, want ErrTooLarge", from.name, len(body), asError(err))
	}
	return from.sendsExactly(ctx, t, []string{string(body[:c.MaxBody])}, to)
}

// topicsApart uses module names that patterns, prefixes and separators of a server could mix up.
func topicsApart(ctx context.Context, w *world) error {
	modules := []string{"fedora", "fedora.x", "fedora-x", "fedora_x", "fedor", "x.fedora"}
	var all, reports []transports.Topic
	for _, m := range modules {
		all, reports = append(all, announce(m)), append(reports, report(m))
	}
	master, err := w.join(ctx, transports.Master, "master", reports...)
	if err != nil {
		return err
	}
	one, err := w.join(ctx, transports.Mirror, "one", announce("fedora"))
	if err != nil {
		return err
	}
	every, err := w.join(ctx, transports.Mirror, "every", all...)
	if err != nil {
		return err
	}
	var sent []string
	for _, t := range all {
		sent = append(sent, "about "+t.Module)
		if err := master.publish(ctx, t, "about "+t.Module); err != nil {
			return err
		}
	}
	// A report must reach neither of them, whatever its module.
	if err := every.sendsReport(ctx, master); err != nil {
		return err
	}
	if err := every.awaitCount(ctx, len(sent)); err != nil {
		return err
	}
	if err := master.marksExactly(ctx, announce("fedora"), []string{"about fedora"}, one); err != nil {
		return err
	}
	for _, m := range every.messages() {
		if body := string(m.Body); body != marker && body != "about "+m.Topic.Module {
			return fmt.Errorf("every: received %q on %s", body, m.Topic)
		}
	}
	return nil
}

func everySubscriber(ctx context.Context, w *world) error {
	master, err := w.join(ctx, transports.Master, "master", report("fedora"))
	if err != nil {
		return err
	}
	var mirrors []*peer
	for _, name := range []string{"mirror-1", "mirror-2", "mirror-3"} {
		m, err := w.join(ctx, transports.Mirror, name, announce("fedora"))
		if err != nil {
			return err
		}
		mirrors = append(mirrors, m)
	}
	return master.sendsExactly(ctx, announce("fedora"), numbered(5), mirrors...)
}

// numbered returns n different bodies whose order is that of their text.
func numbered(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("message %05d", i)
	}
	return all
}

// reports also checks that From, where the transport knows it, tells mirrors apart.
func reports(ctx context.Context, w *world) error {
	master, err := w.join(ctx, transports.Master, "master", report("fedora"))
	if err != nil {
		return err
	}
	var sent []string
	for _, name := range []string{"mirror-1", "mirror-2"} {
		m, err := w.join(ctx, transports.Mirror, name, announce("fedora"))
		if err != nil {
			return err
		}
		sent = append(sent, "from "+name)
		if err := m.publish(ctx, report("fedora"), "from "+name); err != nil {
			return err
		}
	}
	if err := master.awaitCount(ctx, len(sent)); err != nil {
		return err
	}
	if got := slices.Sorted(slices.Values(master.bodies())); !slices.Equal(got, sent) {
		return fmt.Errorf("master: %s", difference(got, sent))
	}
	got := master.messages()
	if from := got[0].From; from != "" && from == got[1].From {
		return fmt.Errorf("reports of two mirrors are both From %q", from)
	}
	return nil
}

func broadcast(ctx context.Context, w *world) error {
	if w.h.MasterServes {
		return fmt.Errorf("%w: there is one master", ErrNotApplicable)
	}
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	second, err := w.join(ctx, transports.Master, "second-master", report("fedora"))
	if err != nil {
		return err
	}
	return mirror.sendsExactly(ctx, report("fedora"), numbered(5), master, second)
}

func order(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	sent := numbered(w.h.bulk())
	if err := inOrder(ctx, master, announce("fedora"), sent, mirror); err != nil || w.polled() {
		return err
	}
	return inOrder(ctx, mirror, report("fedora"), sent, master)
}

func inOrder(ctx context.Context, from *peer, t transports.Topic, sent []string, to *peer) error {
	if err := from.publish(ctx, t, sent...); err != nil {
		return err
	}
	if err := to.awaitCount(ctx, len(sent)); err != nil {
		return err
	}
	if got := to.bodies(); !slices.Equal(got, sent) {
		i := 0
		for i < min(len(got), len(sent)) && got[i] == sent[i] {
			i++
		}
		return fmt.Errorf("%s: message %d is not the one sent as that", to.name, i)
	}
	return nil
}

// once also looks at a receiver that takes its time, as a transport might send again what is not confirmed at once.
func once(ctx context.Context, w *world) error {
	master, mirror, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if err := master.sendsExactly(ctx, announce("fedora"), numbered(w.h.bulk()), mirror); err != nil || w.polled() {
		return err
	}
	return mirror.sendsExactly(ctx, report("fedora"), numbered(w.h.bulk()), master)
}
