package poll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/words"
)

// Limits in the DNS.
const (
	maxString  = 255  // bytes of one of the strings of a TXT record
	maxRecords = 16   // that are looked at under one name
	udpSize    = 1232 // bytes of an answer that no network on the way cuts in two
	resolvConf = "/etc/resolv.conf"
	nameLabel  = "_mirrorbus"
)

// nameOf is the name under which a module's head stands in a zone.
func nameOf(module, zone string) (string, error) {
	name := dns.Fqdn(nameLabel + "." + module + "." + zone)
	if _, ok := dns.IsDomainName(name); !ok || strings.Contains(name, "..") {
		return "", fmt.Errorf("module %s cannot stand in the DNS: %s is no domain name", module, name)
	}
	return strings.ToLower(name), nil
}

// A record is a place in the DNS.
type record struct {
	name    string
	server  string // "host:port"; "" for those of the system
	timeout time.Duration
}

func (r *record) id() string { return "dns " + r.name }

// String implements place.
func (r *record) String() string { return "dns " + strings.TrimSuffix(r.name, ".") }

// look implements place.
func (r *record) look(ctx context.Context) (sight, error) {
	servers, err := r.servers()
	if err != nil {
		return sight{}, err
	}
	var errs []error
	for _, server := range servers {
		answer, err := r.ask(ctx, server, len(servers))
		if err == nil {
			return r.see(answer)
		}
		errs = append(errs, fmt.Errorf("%s: %w", server, err))
	}
	return sight{}, errors.Join(errs...)
}

func (r *record) servers() ([]string, error) {
	if r.server != "" {
		return []string{r.server}, nil
	}
	conf, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil, fmt.Errorf("which servers to ask: %w; or set dns_server", err)
	}
	var all []string
	for _, s := range conf.Servers {
		all = append(all, net.JoinHostPort(s, conf.Port))
	}
	if len(all) == 0 {
		return nil, transports.Permanent(fmt.Errorf("%s names no server; or set dns_server", resolvConf))
	}
	return all, nil
}

// ask asks one server, by TCP if its answer was cut off. of is among how many servers the time has to be shared.
func (r *record) ask(ctx context.Context, server string, of int) (*dns.Msg, error) {
	question := new(dns.Msg)
	question.SetQuestion(r.name, dns.TypeTXT)
	question.SetEdns0(udpSize, false)
	client := dns.Client{Timeout: r.timeout / time.Duration(2*of)}
	answer, err := exchange(ctx, &client, question, server)
	if err == nil && answer.Truncated {
		client.Net = "tcp"
		answer, err = exchange(ctx, &client, question, server)
	}
	switch {
	case err != nil:
		return nil, err
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("it answers %s", dns.RcodeToString[answer.Rcode])
	case !answer.Response || len(answer.Question) != 1 || !strings.EqualFold(answer.Question[0].Name, r.name) || answer.Question[0].Qtype != dns.TypeTXT:
		return nil, errors.New("it answers another question")
	}
	return answer, nil
}

// exchange sends a message and returns the answer, which there may be beside an error about its signature. The library keeps to the deadline of ctx, and does not
// notice when it ends earlier.
func exchange(ctx context.Context, client *dns.Client, m *dns.Msg, server string) (*dns.Msg, error) {
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // what still reads or writes says so
		close(closed)
	})
	answer, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	if !stop() {
		<-closed
		return nil, context.Cause(ctx)
	}
	conn.Close() //nolint:errcheck // all was said
	return answer, err
}

// see reads an answer: of all TXT records in it those that are signed lines. A zone may hold others under the name.
func (r *record) see(answer *dns.Msg) (sight, error) {
	s := sight{}
	least := uint32(1<<32 - 1)
	for _, rr := range answer.Answer[:min(len(answer.Answer), maxRecords)] {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue // a CNAME on the way to it
		}
		least = min(least, txt.Hdr.Ttl)
		if line := lineOf(txt.Txt); line != nil {
			s.bodies = append(s.bodies, line)
		} else {
			s.foreign++
		}
	}
	switch {
	case len(s.bodies) > 0:
		s.fresh = time.Duration(least) * time.Second
		return s, nil
	case s.foreign > 0:
		return s, fmt.Errorf("%d TXT records, and none of them is a signed line", s.foreign)
	}
	return s, fmt.Errorf("there is no TXT record of that name: %s", cmp.Or(dns.RcodeToString[answer.Rcode], "no answer"))
}

// lineOf is the signed line in the strings of a TXT record, nil if there is none.
func lineOf(texts []string) []byte {
	var line []byte
	for _, text := range texts {
		line = append(line, unescape(text)...)
		if len(line) > words.MaxLine {
			return nil
		}
	}
	if !words.IsLine(line) {
		return nil
	}
	return line
}

// stringsOf are those of the TXT record that holds a line.
func stringsOf(line string) (texts []string) {
	for len(line) > 0 {
		n := min(len(line), maxString)
		texts, line = append(texts, escape(line[:n])), line[n:]
	}
	return texts
}

// escape writes a text as the library wants it, which is as zone files have it (RFC 1035 section 5.1).
func escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)
}

// unescape takes back what the library does to bytes that are not plain: \DDD, and a backslash before others.
func unescape(text string) []byte {
	var b []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b = append(b, text[i])
			continue
		}
		if i+3 < len(text) && isDigit(text[i+1]) && isDigit(text[i+2]) && isDigit(text[i+3]) {
			n := int(text[i+1]-'0')*100 + int(text[i+2]-'0')*10 + int(text[i+3]-'0')
			b = append(b, byte(n))
			i += 3
			continue
		}
		i++
		b = append(b, text[i])
	}
	return b
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
