package poll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
)

// Limits of what is taken from web servers. They hold for what comes out of a compressed answer.
const (
	maxDocument  = 1 << 20  // bytes of a feed
	maxHead      = 64 << 10 // bytes of a head
	maxFields    = 64 << 10 // bytes of the fields before it
	maxTag       = 1 << 10  // bytes of an ETag that is worth remembering
	maxRedirects = 5
)

// A browser asks web servers, by way of the proxies that the environment names.
type browser struct {
	client    *http.Client
	user      string
	password  config.Secret
	userAgent string
}

func newBrowser(c *MirrorConfig) (*browser, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(string(c.CA))
		if err != nil {
			return nil, config.Fault("ca_file", fmt.Sprint("cannot be read: ", err), "create it or correct the path")
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(text) {
			return nil, config.Fault("ca_file", fmt.Sprintf("names %s, which holds no certificate", c.CA), "give certificates in PEM form")
		}
	}
	return &browser{user: c.User, password: c.Password, userAgent: "mirrorbus", client: &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxFields,
			MaxIdleConnsPerHost: mostLooks, IdleConnTimeout: 90 * time.Second,
		},
	}}, nil
}

// rest ends the connections that nobody uses.
func (b *browser) rest() { b.client.CloseIdleConnections() }

// checkRedirect follows a server a few steps. Who is known to a server is not told to another one by net/http.
func checkRedirect(next *http.Request, before []*http.Request) error {
	for _, r := range before {
		if r.URL.String() == next.URL.String() {
			return fmt.Errorf("it leads back to %s: a loop", shown(next.URL))
		}
	}
	switch {
	case len(before) > maxRedirects:
		return fmt.Errorf("it leads on and on, now to %s, after %d steps", shown(next.URL), maxRedirects)
	case before[0].URL.Scheme == "https" && next.URL.Scheme != "https":
		return fmt.Errorf("it leads from https to %s", shown(next.URL))
	}
	return nil
}

// shown is a URL without what may be secret in it.
func shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// A page is a place on the web.
type page struct {
	b    *browser
	url  string
	what string // "feed" or "head"
	read func([]byte) (bodies [][]byte, foreign int, err error)
	most int64 // bytes

	// What the server said of the answer that was taken last, so that it need not give it again. They belong to the one follower of the page.
	tag, modified string
}

func (p *page) id() string { return p.what + " " + p.url }

// String implements place.
func (p *page) String() string {
	u, err := url.Parse(p.url)
	if err != nil {
		return p.what
	}
	return p.what + " " + shown(u)
}

// look implements place.
func (p *page) look(ctx context.Context) (sight, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return sight{}, transports.Permanent(plain(err))
	}
	ask.Header.Set("User-Agent", p.b.userAgent)
	if p.tag != "" {
		ask.Header.Set("If-None-Match", p.tag)
	}
	if p.modified != "" {
		ask.Header.Set("If-Modified-Since", p.modified)
	}
	if p.b.user != "" {
		ask.SetBasicAuth(p.b.user, p.b.password.Reveal())
	}
	answer, err := p.b.client.Do(ask)
	if err != nil {
		return sight{}, explain(err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was only read
	return p.see(answer, time.Now())
}

// see reads an answer.
func (p *page) see(a *http.Response, now time.Time) (sight, error) {
	s := sight{fresh: freshness(a.Header)}
	switch {
	case a.StatusCode == http.StatusNotModified && p.tag+p.modified != "":
		s.unchanged = true
		return s, nil
	case a.StatusCode != http.StatusOK:
		return s, refusal(a, now)
	case a.ContentLength > p.most:
		return s, fmt.Errorf("it is %d bytes long, a %s has %d at most: is the address right?", a.ContentLength, p.what, p.most)
	}
	text, err := io.ReadAll(io.LimitReader(a.Body, p.most+1))
	switch {
	case err != nil:
		return s, fmt.Errorf("it stops after %d bytes: %w", len(text), plain(err))
	case int64(len(text)) > p.most:
		return s, fmt.Errorf("it goes on after %d bytes, which is the most that a %s has: is the address right?", p.most, p.what)
	}
	if s.bodies, s.foreign, err = p.read(text); err != nil {
		return s, err
	}
	tag, modified := worth(a.Header.Get("ETag")), worth(a.Header.Get("Last-Modified"))
	if !settled(a.Header, now) {
		tag, modified = "", ""
	}
	s.taken = func() { p.tag, p.modified = tag, modified }
	return s, nil
}

// settling is how long after a change a server may not tell it from the next one: many make both of these fields from a time in whole seconds and from the length, and
// one head is as long as another (RFC 9110 section 8.8.2.2).
const settling = 2 * time.Second

// settled tells whether a server would notice when the answer changes.
func settled(h http.Header, now time.Time) bool {
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return true
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date // by the same clock
	}
	return now.Sub(modified) >= settling
}

func worth(field string) string {
	if len(field) > maxTag {
		return ""
	}
	return field
}

// refusal is the error of an answer that is none.
func refusal(a *http.Response, now time.Time) error {
	err := fmt.Errorf("the server says %.100q", a.Status)
	switch a.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		err = transports.Permanent(fmt.Errorf("%w: see user and password_file", err))
	case http.StatusNotFound, http.StatusGone:
		err = fmt.Errorf("%w: is the address right, and does the master show this module?", err)
	}
	if wait := retryAfter(a.Header.Get("Retry-After"), now); wait > 0 {
		return later{err, wait}
	}
	return err
}

// retryAfter reads a field Retry-After (RFC 9110 section 10.2.3): seconds, or a time.
func retryAfter(field string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(field); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}

// freshness is for how long a cache would give the same answer: what is left of max-age (RFC 9111 section 4.2).
func freshness(h http.Header) time.Duration {
	fresh := time.Duration(0)
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(key) {
		case "no-cache", "no-store":
			return 0
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				fresh = time.Duration(n) * time.Second
			}
		}
	}
	age, err := strconv.ParseUint(h.Get("Age"), 10, 31)
	if err != nil {
		age = 0
	}
	return max(fresh-time.Duration(age)*time.Second, 0)
}

// explain says why no answer came. What another certificate or name would mend is not tried again soon.
func explain(err error) error {
	err = plain(err)
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return transports.Permanent(fmt.Errorf("%w; see ca_file", err))
	case errors.As(err, &name), errors.As(err, &invalid):
		return transports.Permanent(err)
	}
	return err
}

// plain is an error of net/http without the address, which may hold what is secret.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
