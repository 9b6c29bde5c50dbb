package trigger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports"
)

// A command is one that people give by a transport on which they talk.
type command struct {
	name, usage string
	rights      transports.Rights
	run         func(h *Hub, ctx context.Context, a asked) ([]string, error)
}

// asked is a command and who gave it.
type asked struct {
	words []string // after the command
	who   string   // for the journal
	inner bool     // may see modules that only some mirrors may have
}

// commands are all of them. What changes something needs an account that the configuration lets, or a signature.
func commands() []command {
	return []command{
		{"status", "!status [module|mirror]", transports.MayAsk, (*Hub).sayStatus},
		{"who", "!who", transports.MayAsk, (*Hub).sayWho},
		{"log", "!log module", transports.MayAsk, (*Hub).sayLog},
		{"help", "!help", transports.MayAsk, (*Hub).sayHelp},
		{"sync", "!sync module [path…]", transports.MayCommand, (*Hub).sync},
		{"flip", "!flip module path…", transports.MayCommand, (*Hub).flip},
	}
}

// Ask answers what somebody asks by a transport on which people talk. Where others listen it says nothing of what may be meant for another bot.
func (h *Hub) Ask(ctx context.Context, q transports.Question) ([]string, error) {
	if isSigned(q) {
		return h.answered(q)(h.obey(ctx, q.Text))
	}
	words := strings.Fields(q.Text)
	i := slices.IndexFunc(commands(), func(c command) bool { return len(words) > 0 && c.name == words[0] })
	if i < 0 {
		if q.Alone && q.Rights >= transports.MayAsk {
			return h.sayHelp(ctx, asked{})
		}
		return nil, nil
	}
	c := commands()[i]
	switch {
	case q.Rights >= c.rights:
	case !q.Alone:
		return nil, nil // others may be meant, and may answer
	case c.rights == transports.MayCommand:
		return nil, fmt.Errorf("%s is for accounts that this master's configuration names, where the server vouches for them", c.usage)
	default:
		return nil, errors.New("this master answers those who are logged in to an account")
	}
	return h.answered(q)(c.run(h, ctx, asked{words: words[1:], who: cmp.Or(q.Account, "anybody"), inner: q.Alone && q.Rights >= transports.MayCommand}))
}

// answered keeps back, where others listen, errors of what may be for another master, and of lines that nobody has signed who counts here.
func (h *Hub) answered(q transports.Question) func([]string, error) ([]string, error) {
	return func(lines []string, err error) ([]string, error) {
		var unknown *unknownModule
		if !q.Alone && (errors.As(err, &unknown) || errors.Is(err, event.ErrRefused) || errors.Is(err, event.ErrFormat)) {
			h.log.Info("not answered", "account", q.Account, "error", err)
			return nil, nil
		}
		return lines, err
	}
}

// unknownModule is of a word that is neither a module nor a mirror of this master.
type unknownModule struct{ word string }

func (e *unknownModule) Error() string { return fmt.Sprintf("this master knows no %q", e.word) }

// named returns the module that the first word names.
func (h *Hub) named(a asked, usage string) (event.Module, error) {
	if len(a.words) == 0 {
		return "", errors.New("usage: " + usage)
	}
	m := event.Module(a.words[0])
	if _, err := h.publisher.module(m); err != nil || !h.sees(a, m) {
		return "", &unknownModule{a.words[0]}
	}
	return m, nil
}

func (h *Hub) sayHelp(context.Context, asked) ([]string, error) {
	var usages []string
	for _, c := range commands() {
		usages = append(usages, c.usage)
	}
	return []string{h.conf.Name + " knows " + strings.Join(usages, ", ")}, nil
}

func (h *Hub) sayStatus(ctx context.Context, a asked) (lines []string, err error) {
	s, err := h.visible(ctx, a)
	if err != nil {
		return nil, err
	}
	word := ""
	if len(a.words) > 0 {
		word = a.words[0]
	}
	for _, m := range s.Modules {
		if word == "" || word == string(m.Module) {
			lines = append(lines, m.sentence(s.Now))
			continue
		}
		for _, one := range m.Mirrors {
			if one.Mirror == word {
				lines = append(lines, one.sentence(m.Module, s.Now))
			}
		}
	}
	if lines == nil && word != "" {
		return nil, &unknownModule{word}
	}
	return lines, nil
}

func (h *Hub) sayWho(ctx context.Context, a asked) ([]string, error) {
	s, err := h.visible(ctx, a)
	if err != nil {
		return nil, err
	}
	var here, away []string
	for _, m := range s.Modules {
		for _, one := range m.Mirrors {
			if one.State == Away {
				away = append(away, one.Mirror)
			} else {
				here = append(here, one.Mirror)
			}
		}
	}
	slices.Sort(here)
	slices.Sort(away)
	here, away = slices.Compact(here), slices.Compact(away)
	text := fmt.Sprintf("%s hears %d mirrors: %s", h.conf.Name, len(here), few(here))
	if len(away) > 0 {
		text += fmt.Sprintf("; away: %s", few(away))
	}
	return []string{text}, nil
}

func (h *Hub) sayLog(ctx context.Context, a asked) ([]string, error) {
	m, err := h.named(a, "!log module")
	if err != nil {
		return nil, err
	}
	entries, err := h.publisher.Log(ctx, m, 5)
	if err != nil {
		return nil, err
	}
	lines := make([]string, len(entries))
	for i, e := range entries {
		lines[i] = fmt.Sprintf("%s %d %s: %s, %s ago", m, e.Serial, e.Kind, count(e.Records), age(h.now().Sub(e.At)))
		if by := strings.TrimSpace(e.Source + " " + e.Principal); by != "" {
			lines[i] += " by " + by
		}
	}
	return lines, nil
}

// sync announces paths as they are now. Without any it says the head anew, so that mirrors which are behind look.
func (h *Hub) sync(ctx context.Context, a asked) ([]string, error) {
	m, err := h.named(a, "!sync module [path…]")
	if err != nil {
		return nil, err
	}
	if len(a.words) == 1 {
		h.sendHead(ctx, m)
		h.log.Info("head said anew", "module", m, "principal", a.who)
		return []string{fmt.Sprintf("%s: the mirrors are told where it stands", m)}, nil
	}
	return h.announce(ctx, m, a, false)
}

func (h *Hub) flip(ctx context.Context, a asked) ([]string, error) {
	m, err := h.named(a, "!flip module path…")
	if err != nil {
		return nil, err
	}
	if len(a.words) == 1 {
		return nil, errors.New("usage: !flip module path…")
	}
	return h.announce(ctx, m, a, true)
}

// announce publishes in the name of who asked.
func (h *Hub) announce(ctx context.Context, m event.Module, a asked, flip bool) ([]string, error) {
	var names []Name
	for _, path := range a.words[1:] {
		names = append(names, ParseName(path))
	}
	r := NewRequest(m, names)
	r.Flip, r.Source, r.Principal = flip, "irc", a.who
	p, err := h.Publish(ctx, r)
	if err != nil {
		if hint := fault.HintOf(err); hint != "" {
			err = fmt.Errorf("%w (%s)", err, hint)
		}
		return nil, err
	}
	if !p.Held.IsZero() {
		return []string{fmt.Sprintf("%s: %s, announced when the compose under way ends, at %s at the latest", m, count(p.Records), p.Held.UTC().Format(time.RFC3339))}, nil
	}
	return []string{fmt.Sprintf("%s %d: announced, %s", m, p.Serial, count(p.Records))}, nil
}
