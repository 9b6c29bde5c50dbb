// Package metrics writes numbers in the text format of Prometheus, which most programs that watch others can read.
//
// The format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text-based format 0.0.4).
package metrics

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Page is the numbers at one moment. What has one name stands together, in the order in which the names came first.
type Page struct {
	names    []string
	families map[string]*family
}

// A family is all numbers of one name.
type family struct{ help, kind, lines string }

// Gauge adds a number that may rise and fall. The labels are names, each followed by its value. help is that of the first of its name.
func (p *Page) Gauge(name, help string, value float64, labels ...string) {
	p.add(name, help, "gauge", value, labels)
}

// Counter adds a number that only rises, until the daemon is started again. Its name ends in "_total".
func (p *Page) Counter(name, help string, value uint64, labels ...string) {
	p.add(name, help, "counter", float64(value), labels)
}

func (p *Page) add(name, help, kind string, value float64, labels []string) {
	f := p.families[name]
	if f == nil {
		if p.families == nil {
			p.families = map[string]*family{}
		}
		f = &family{help: help, kind: kind}
		p.names, p.families[name] = append(p.names, name), f
	}
	var said []string
	for i := 0; i+1 < len(labels); i += 2 {
		said = append(said, labels[i]+`="`+escaped.Replace(strings.ToValidUTF8(labels[i+1], "�"))+`"`)
	}
	f.lines += name
	if said != nil {
		f.lines += "{" + strings.Join(said, ",") + "}"
	}
	f.lines += " " + strconv.FormatFloat(value, 'f', -1, 64) + "\n"
}

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// WriteTo implements io.WriterTo.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	var all bytes.Buffer
	for _, name := range p.names {
		f := p.families[name]
		fmt.Fprintf(&all, "# HELP %s %s\n# TYPE %[1]s %[3]s\n%[4]s", name, f.help, f.kind, f.lines)
	}
	return all.WriteTo(w)
}
