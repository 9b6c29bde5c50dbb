package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/mirrorbus/mirrorbus/transports"
)

// digests are mails for people: of each module one at most in each interval, with what was announced since the last one, in words. They carry nothing for
// programs. What is gathered is kept in memory alone: a hub that is started again begins anew.
type digests struct {
	t     *transport
	to    []string
	every time.Duration
	wake  chan struct{} // holds a token when something was added

	mu    sync.Mutex
	open  map[string]*gathered // by module
	due   map[string]time.Time // when the next one may be sent
	count int                  // of mails, for their Message-Ids
}

// gathered is what one mail will say.
type gathered struct {
	lines []string // the first maxLines
	n     int
	last  string // the newest
}

// maxLines is how many announcements a digest tells one by one.
const maxLines = 200

func newDigests(t *transport, to []string, every time.Duration) *digests {
	return &digests{t: t, to: to, every: every, wake: make(chan struct{}, 1), open: map[string]*gathered{}, due: map[string]time.Time{}}
}

// add notes an announcement that was sent.
func (d *digests) add(m transports.Message) {
	if d == nil || m.Topic.Kind != transports.Announce || beats(m) {
		return
	}
	at := words(m.Body)["at"]
	if at == "" {
		at = time.Now().UTC().Format(time.RFC3339)
	}
	d.mu.Lock()
	g := d.open[m.Topic.Module]
	if g == nil {
		g = &gathered{}
		d.open[m.Topic.Module] = g
	}
	g.n++
	g.last = gist(m)
	if len(g.lines) < maxLines {
		g.lines = append(g.lines, at+"  "+g.last)
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run sends what is due until ctx is done.
func (d *digests) run(ctx context.Context) {
	for {
		wait := d.sendDue(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-d.wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// sendDue sends what is due, and returns how long there is nothing to be sent.
func (d *digests) sendDue(ctx context.Context) (wait time.Duration) {
	wait = d.every
	for _, module := range d.modules() {
		d.mu.Lock()
		late := time.Until(d.due[module])
		g := d.open[module]
		if late <= 0 {
			delete(d.open, module)
			d.due[module] = time.Now().Add(d.every)
			d.count++
		}
		number := d.count
		d.mu.Unlock()
		if late > 0 {
			wait = min(wait, late)
			continue
		}
		for _, to := range d.to {
			d.send(ctx, module, to, number, g)
		}
	}
	return wait
}

func (d *digests) modules() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.open))
}

// send sends one digest. One that cannot be sent is said, and not sent later: the next one comes.
func (d *digests) send(ctx context.Context, module, to string, number int, g *gathered) {
	text, err := d.compose(module, to, number, g)
	if err == nil {
		err = d.t.out.lock(ctx)
	}
	if err == nil {
		err = d.t.out.send(ctx, d.t.post.From, to, text)
		d.t.out.unlock()
	}
	switch {
	case err == nil:
		d.t.count("digests")
		d.t.accepted(to)
	case errors.Is(err, errRefused):
		d.t.note(to, isRefused, err.Error())
	case ctx.Err() == nil:
		d.t.log.Warn("a digest was not sent", "module", module, "to", to, "error", oneLine(err.Error()))
	}
}

func (d *digests) compose(module, to string, number int, g *gathered) ([]byte, error) {
	one := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(one.From(d.t.post.From), one.To(to)); err != nil {
		return nil, err
	}
	subject := "[mirrorbus] " + g.last
	if g.n > 1 {
		subject = fmt.Sprintf("[mirrorbus] %d announcements, the last: %s", g.n, g.last)
	}
	one.Subject(subject)
	one.SetDate()
	one.SetMessageIDWithValue(fmt.Sprintf("%d-%d.%s.digest.mirrorbus@%s", time.Now().Unix(), number, dashed(module), d.t.post.domain()))
	root := fmt.Sprintf("<%s.thread.mirrorbus@%s>", dashed(module), d.t.post.domain())
	for field, value := range map[string]string{
		"References": root, "In-Reply-To": root, "List-Id": fmt.Sprintf("<%s.mirrorbus.%s>", dashed(module), d.t.post.domain()),
		"Auto-Submitted": "auto-generated", "Precedence": "list",
	} {
		one.SetGenHeader(gomail.Header(field), value)
	}
	body := "Announced to the mirrors:\r\n\r\n" + strings.Join(g.lines, "\r\n") + "\r\n"
	if g.n > len(g.lines) {
		body += fmt.Sprintf("and %d more\r\n", g.n-len(g.lines))
	}
	body += "\r\n`mirrorbus status` tells which mirrors have it.\r\n"
	one.SetBodyString(gomail.TypeTextPlain, body)
	var out bytes.Buffer
	if _, err := one.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("write the digest: %w", err)
	}
	return out.Bytes(), nil
}
