package mail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// digests are mails for people: of each module one at most in each interval, with what was announced since the last one, in words. They carry nothing for
// programs. What is gathered is kept over a restart of the hub, where there is a place for it.
type digests struct {
	t     *transport
	to    []string
	every time.Duration
	wake  chan struct{} // holds a token when something was added

	mu    sync.Mutex
	kept  keptDigests
	count int // of mails, for their Message-Ids
}

// keptDigests is what is kept, as JSON in a bookmark.
type keptDigests struct {
	Open map[string]*gathered `json:"open"` // by module
	Due  map[string]time.Time `json:"due"`  // when the next one may be sent
}

// gathered is what one mail will say.
type gathered struct {
	Lines []string `json:"lines"` // the first maxLines
	N     int      `json:"n"`
	Last  string   `json:"last"` // the newest
}

// maxLines is how many announcements a digest tells one by one.
const maxLines = 200

func newDigests(t *transport, to []string, every time.Duration) *digests {
	return &digests{t: t, to: to, every: every, wake: make(chan struct{}, 1), kept: keptDigests{Open: map[string]*gathered{}, Due: map[string]time.Time{}}}
}

// digestMark is the name of the bookmark.
const digestMark = Name + ".digest"

// restore takes up what was gathered before the hub was started again.
func (d *digests) restore(ctx context.Context) {
	if d.t.env.Bookmarks == nil {
		return
	}
	text, err := d.t.env.Bookmarks.Bookmark(ctx, digestMark)
	var kept keptDigests
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &kept)
	}
	if err != nil {
		d.t.log.Warn("what digests were to tell is lost", "error", err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for module, g := range kept.Open {
		d.putBack(module, g)
	}
	maps.Copy(d.kept.Due, kept.Due)
}

// putBack puts what was gathered earlier before what was since.
func (d *digests) putBack(module string, g *gathered) {
	if since := d.kept.Open[module]; since != nil {
		g = &gathered{Lines: slices.Concat(g.Lines, since.Lines), N: g.N + since.N, Last: since.Last}
		g.Lines = g.Lines[:min(len(g.Lines), maxLines)]
	}
	d.kept.Open[module] = g
}

// save keeps what is gathered.
func (d *digests) save(ctx context.Context) {
	if d.t.env.Bookmarks == nil {
		return
	}
	d.mu.Lock()
	text, err := json.Marshal(d.kept)
	d.mu.Unlock()
	if err == nil {
		err = d.t.env.Bookmarks.SetBookmark(ctx, digestMark, string(text))
	}
	if err != nil && ctx.Err() == nil {
		d.t.log.Warn("what digests are to tell is not kept", "error", err)
	}
}

// add notes an announcement that was sent.
func (d *digests) add(m transports.Message) {
	if d == nil || m.Topic.Kind != transports.Announce || beats(m) {
		return
	}
	at := words.Of(m.Body)["at"]
	if at == "" {
		at = time.Now().UTC().Format(time.RFC3339)
	}
	d.mu.Lock()
	g := d.kept.Open[m.Topic.Module]
	if g == nil {
		g = &gathered{}
		d.kept.Open[m.Topic.Module] = g
	}
	g.N++
	g.Last = gist(m)
	if len(g.Lines) < maxLines {
		g.Lines = append(g.Lines, at+"  "+g.Last)
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run sends what is due until ctx is done.
func (d *digests) run(ctx context.Context) {
	d.restore(ctx)
	for {
		wait := d.sendDue(ctx)
		d.save(ctx)
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
		late := time.Until(d.kept.Due[module])
		g := d.kept.Open[module]
		if late <= 0 {
			delete(d.kept.Open, module)
			d.kept.Due[module] = time.Now().Add(d.every)
			d.count++
		}
		number := d.count
		d.mu.Unlock()
		if late > 0 {
			wait = min(wait, late)
			continue
		}
		sent := 0
		for _, to := range d.to {
			if d.send(ctx, module, to, number, g) {
				sent++
			}
		}
		if sent == 0 {
			wait = min(wait, digestRetry)
			d.mu.Lock()
			d.putBack(module, g)
			d.kept.Due[module] = time.Now().Add(min(d.every, digestRetry))
			d.mu.Unlock()
		}
	}
	return wait
}

// digestRetry is how long after a digest that reached nobody it is sent again.
const digestRetry = time.Minute

func (d *digests) modules() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.kept.Open))
}

// send sends one digest, and tells whether there is no more to be done about it.
func (d *digests) send(ctx context.Context, module, to string, number int, g *gathered) bool {
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
		d.t.accepted(to, "")
	case errors.Is(err, errRefused):
		d.t.note(to, isRefused, err.Error())
	case ctx.Err() == nil:
		d.t.log.Warn("a digest was not sent", "module", module, "to", to, "error", oneLine(err.Error()))
		return false
	}
	return ctx.Err() == nil
}

func (d *digests) compose(module, to string, number int, g *gathered) ([]byte, error) {
	one := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := errors.Join(one.From(d.t.post.From), one.To(to)); err != nil {
		return nil, err
	}
	subject := "[mirrorbus] " + g.Last
	if g.N > 1 {
		subject = fmt.Sprintf("[mirrorbus] %d announcements, the last: %s", g.N, g.Last)
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
	body := "Announced to the mirrors:\r\n\r\n" + strings.Join(g.Lines, "\r\n") + "\r\n"
	if g.N > len(g.Lines) {
		body += fmt.Sprintf("and %d more\r\n", g.N-len(g.Lines))
	}
	body += "\r\n`mirrorbus status` tells which mirrors have it.\r\n"
	one.SetBodyString(gomail.TypeTextPlain, body)
	var out bytes.Buffer
	if _, err := one.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("write the digest: %w", err)
	}
	return out.Bytes(), nil
}
