package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/mirrorbus/mirrorbus/trigger"
)

// A progressView shows how a serial reaches the mirrors: one line drawn again and again on a terminal, else a line for each mirror that has it.
type progressView struct {
	out   io.Writer
	json  bool
	live  bool
	wide  int
	shown map[string]bool
}

func (a *app) newProgressView() *progressView {
	return &progressView{out: a.out, json: a.json, live: !a.json && isTerminal(a.out), shown: map[string]bool{}}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

func (v *progressView) show(raw json.RawMessage, p trigger.Progress) error {
	if v.json {
		_, err := fmt.Fprintf(v.out, "%s\n", raw)
		return err
	}
	for _, m := range p.Mirrors {
		if !m.Has || v.shown[m.Mirror] {
			continue
		}
		v.shown[m.Mirror] = true
		v.clear()
		fmt.Fprintf(v.out, "%-20s %s after %s%s\n", m.Mirror, m.Outcome, short(m.Applied), via(m.Via))
	}
	if v.live {
		line := fmt.Sprintf("%d of %d mirrors have serial %d, %s", p.Have, p.Want, p.Serial, short(p.Elapsed.Round(100*time.Millisecond)))
		v.clear()
		v.wide = len(line)
		fmt.Fprint(v.out, line)
	} else if p.Done {
		fmt.Fprintf(v.out, "%d of %d mirrors have serial %d after %s\n", p.Have, p.Want, p.Serial, short(p.Elapsed))
	}
	return nil
}

func (v *progressView) clear() {
	if v.live && v.wide > 0 {
		fmt.Fprint(v.out, "\r"+strings.Repeat(" ", v.wide)+"\r")
		v.wide = 0
	}
}

func (v *progressView) end() {
	if v.live && v.wide > 0 {
		fmt.Fprintln(v.out)
	}
}

func via(s string) string {
	if s == "" {
		return ""
	}
	return " by " + s
}
