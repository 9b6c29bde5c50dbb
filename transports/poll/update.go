package poll

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/mirrorbus/mirrorbus/transports"
)

// Times of updates.
const (
	updateTime = 20 * time.Second // for the server to answer
	retryMin   = 2 * time.Second  // between two attempts after errors, at first
	retryMax   = 5 * time.Minute  // and at most
	fudge      = 300              // seconds that the clocks of the two may differ by, as RFC 8945 recommends
)

// An updater puts the newest head of each module into the DNS, by updates that a key signs (RFC 2136, RFC 8945). What is replaced before it was sent is not sent.
type updater struct {
	conf DNSConfig
	log  *slog.Logger

	done, failed atomic.Uint64

	wake chan struct{} // holds a token if there may be something to send

	mu    sync.Mutex
	heads map[string]string // by module, what is to be there
	sent  map[string]string // what is there
	err   map[string]error  // by module, why it is not
	since map[string]time.Time
}

func newUpdater(c DNSConfig, log *slog.Logger) *updater {
	return &updater{
		conf: c, log: log, wake: make(chan struct{}, 1), heads: map[string]string{}, sent: map[string]string{}, err: map[string]error{},
		since: map[string]time.Time{},
	}
}

// set says what the head of a module is now.
func (u *updater) set(module, head string) {
	u.mu.Lock()
	u.heads[module] = head
	u.mu.Unlock()
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// run sends what is set until ctx is done. What failed is tried again, later each time.
func (u *updater) run(ctx context.Context) {
	pause := transports.Pause{Min: retryMin, Max: retryMax}
	for {
		wake, retry := u.wake, (<-chan time.Time)(nil)
		if u.sendAll(ctx) {
			pause.Reset()
		} else {
			wake, retry = nil, time.After(pause.Next(rand.Float64())) // what is new does not go earlier than what failed
		}
		select {
		case <-ctx.Done():
			return
		case <-retry:
		case <-wake:
		}
	}
}

// sendAll sends each head that is not there, and returns whether all are.
func (u *updater) sendAll(ctx context.Context) bool {
	all := true
	u.mu.Lock()
	due := maps.Clone(u.heads)
	maps.DeleteFunc(due, func(module, head string) bool { return u.sent[module] == head })
	u.mu.Unlock()
	for _, module := range slices.Sorted(maps.Keys(due)) {
		err := u.send(ctx, module, due[module])
		if ctx.Err() != nil {
			return false
		}
		u.note(module, due[module], err)
		all = all && err == nil
	}
	return all
}

// note notes what became of a head. An error is logged when its text changes.
func (u *updater) note(module, head string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	was := u.err[module]
	if err == nil {
		u.done.Add(1)
		u.sent[module] = head
		delete(u.err, module)
		delete(u.since, module)
		if was != nil {
			u.log.Info("head is in the DNS again", "module", module)
		}
		return
	}
	u.failed.Add(1)
	if was == nil {
		u.since[module] = time.Now()
	}
	if was == nil || was.Error() != err.Error() {
		u.log.Warn("head could not be put into the DNS, trying again", "module", module, "error", err)
	}
	u.err[module] = err
}

// notes says which names are not as they should be, and why.
func (u *updater) notes() (all []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, module := range slices.Sorted(maps.Keys(u.err)) {
		all = append(all, fmt.Sprintf("DNS: head of %s not updated since %s: %v", module, stamp(u.since[module]), u.err[module]))
	}
	return all
}

// send exchanges the TXT records under a module's name for one that holds a head.
func (u *updater) send(ctx context.Context, module, head string) error {
	name, err := nameOf(module, u.conf.Zone)
	if err != nil {
		return err
	}
	h := dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(u.conf.TTL.Seconds())}
	update := new(dns.Msg)
	update.SetUpdate(dns.Fqdn(u.conf.Zone))
	update.RemoveRRset([]dns.RR{&dns.TXT{Hdr: h}})
	update.Insert([]dns.RR{&dns.TXT{Hdr: h, Txt: stringsOf(head)}})
	answer, err := u.conf.ask(ctx, update)
	if err != nil {
		return err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("%s refuses to change %s: %s; may the key %s do that?", u.conf.Server, name, dns.RcodeToString[answer.Rcode], u.conf.Key)
	}
	return nil
}

// ask signs a message, sends it, and returns the answer, which the server has signed with the same key. TCP, as a head and its signature may be too large for
// one packet, and as a packet that was lost would cost seconds.
func (c *DNSConfig) ask(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	key := strings.ToLower(dns.Fqdn(c.Key))
	m.SetTsig(key, algorithms()[c.Algorithm], fudge, time.Now().Unix())
	client := dns.Client{Net: "tcp", Timeout: updateTime, TsigSecret: map[string]string{key: strings.TrimSpace(c.Secret.Reveal())}}
	answer, err := exchange(ctx, &client, m, c.Server)
	if answer != nil && answer.Rcode == dns.RcodeNotAuth { // it says why in the signature, which it may have left empty
		if t := answer.IsTsig(); t != nil && t.Error != 0 {
			return nil, fmt.Errorf("%s does not take our signature: %s; see key, algorithm and secret_file, and the clocks", c.Server, dns.RcodeToString[int(t.Error)])
		}
		return nil, fmt.Errorf("%s is not the primary server of %s: NOTAUTH", c.Server, c.Zone)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Server, err)
	}
	if answer.IsTsig() == nil {
		return nil, fmt.Errorf("%s has not signed its answer: %s", c.Server, dns.RcodeToString[answer.Rcode])
	}
	return answer, nil
}
