package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table writes rows in columns; the first is the heading.
func table(w io.Writer, f func(row func(cells ...any))) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	f(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, c)
		}
		fmt.Fprintln(t)
	})
	return t.Flush()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return humanize.Comma(int64(n)) + " " + what + "s"
}

// short writes a duration with three digits or so: 41ms, 1.2s, 3m20s, 5d.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + short(-d)
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return d.Round(time.Minute).String()[:len(d.Round(time.Minute).String())-len("0s")]
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// ago writes when something was, or "never".
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return short(now.Sub(t)) + " ago"
}

// colours paints state words on a terminal; NO_COLOR turns it off, CLICOLOR_FORCE on. Where it paints it adds the same number of bytes to every
// word, so that the cells of a column, its heading too, stay aligned when all of them pass through here.
func (a *app) colours(word string) string {
	on := isTerminal(a.out) && os.Getenv("NO_COLOR") == "" || os.Getenv("CLICOLOR_FORCE") != ""
	code := map[string]string{
		"current": "32", "connected": "32", "degraded": "33", "not connected": "31", "behind": "33", "syncing": "33", "composing": "33", "waiting-upstream": "33", "retrying": "33", "new": "33",
		"failing": "31", "blocked": "31", "held": "31", "quarantined": "31", "diverged": "31", "away": "31", "deaf": "31", "stale": "31",
	}[word]
	if !on {
		return word
	}
	if code == "" {
		code = "39"
	}
	return "\x1b[" + code + "m" + word + "\x1b[0m"
}
