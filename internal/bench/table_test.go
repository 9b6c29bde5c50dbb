package bench_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A unit says what a figure is.
type unit int

const (
	seconds unit = iota
	byteCount
	count
	fraction
	perSecond
	cpu // seconds of CPU per minute
)

// A row is one figure of mirrorbus beside one of a bare tool.
type row struct {
	line, what string
	ours       float64
	against    string // "": there is nothing to compare it with
	theirs     float64
	unit       unit
	aim        float64 // ours is to be at most so much, a rate at least; 0: no aim
	rounds     int
}

func (r row) cells() []string {
	ratio, aim := "", ""
	if r.theirs > 0 {
		ratio = fmt.Sprintf("%.3g", r.ours/r.theirs)
	}
	if r.aim > 0 {
		aim = "kept: " + r.unit.show(r.aim)
		if r.ours > r.aim != (r.unit == perSecond) {
			aim = "MISSED: " + r.unit.show(r.aim)
		}
	}
	theirs := r.unit.show(r.theirs)
	if r.against == "" {
		theirs = ""
	}
	return []string{r.line, r.what, r.unit.show(r.ours), r.against, theirs, ratio, aim, fmt.Sprint(r.rounds)}
}

var heading = []string{"line", "what", "mirrorbus", "beside", "its figure", "ratio", "aim", "n"}

func (u unit) show(v float64) string {
	switch u {
	case seconds:
		switch d := time.Duration(v * float64(time.Second)); {
		case d < time.Millisecond:
			return fmt.Sprintf("%.3g µs", d.Seconds()*1e6)
		case d < 999*time.Millisecond:
			return fmt.Sprintf("%.3g ms", d.Seconds()*1e3)
		default:
			return fmt.Sprintf("%.3g s", d.Seconds())
		}
	case byteCount:
		if v < 10<<20 {
			return fmt.Sprintf("%.1f KiB", v/1024)
		}
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	case fraction:
		return fmt.Sprintf("%.2f", v)
	case perSecond:
		return fmt.Sprintf("%.0f/s", v)
	case cpu:
		return fmt.Sprintf("%.2f CPU-s/min", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// add takes a row in, and says it at once.
func (b *bench) add(r row) {
	b.rows = append(b.rows, r)
	say("  %s", strings.Join(r.cells()[1:], " | "))
}

// plain is the table for a terminal.
func plain(rows []row) string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(heading, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	w.Flush() //nolint:errcheck // a buffer takes everything
	return out.String()
}

// markdown is the table for the README.
func markdown(rows []row) string {
	var out strings.Builder
	bar := func(cells []string) { fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | ")) }
	bar(heading)
	bar(slices.Repeat([]string{"---"}, len(heading)))
	for _, r := range rows {
		bar(r.cells())
	}
	return out.String()
}

// machine says what it ran on.
func machine() string {
	var u unix.Utsname
	kernel := "?"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	version := "rsync ?"
	if out, err := exec.Command("rsync", "--version").Output(); err == nil {
		version = strings.Join(strings.Fields(strings.SplitN(string(out), "\n", 2)[0])[:3:3], " ")
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("?")
	}
	return fmt.Sprintf("%d cores, Linux %s, %s, %s, load average %s", runtime.NumCPU(), kernel, strings.Replace(version, " version", "", 1), runtime.Version(),
		strings.Fields(string(load))[0])
}

// median is the middle one.
func median[T time.Duration | float64](of []T) float64 {
	of = slices.Clone(of)
	slices.Sort(of)
	if len(of) == 0 {
		return -1
	}
	m := float64(of[len(of)/2])
	if len(of)%2 == 0 {
		m = (m + float64(of[len(of)/2-1])) / 2
	}
	var zero T
	if _, is := any(zero).(time.Duration); is {
		m /= float64(time.Second)
	}
	return m
}
