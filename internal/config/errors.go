package config

import (
	"fmt"
	"strings"
	"unicode"
)

// An Error is one fault in a configuration file.
type Error struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`   // counted from 1, 0 if the fault has no place
	Column  int    `json:"column,omitempty"` // in bytes, counted from 1
	Key     string `json:"key,omitempty"`    // the full key, dotted, "" for a syntax error
	Problem string `json:"problem"`          // what is wrong
	Snippet string `json:"-"`                // the faulty line, and a caret below the fault
	Hint    string `json:"hint,omitempty"`   // what to do about it, "" if there is nothing to say
}

// Error is one line: agent.toml:7:1: unknown key "paht".
func (e *Error) Error() string {
	switch {
	case e.File == "":
		return strings.TrimPrefix(e.Key+": ", ": ") + e.Problem
	case e.Line == 0:
		return e.File + ": " + e.Problem
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Problem)
}

// Detail is Error with the faulty line, a caret below it and the hint, for a terminal. It may show what stands in the file and so does not
// belong in a log.
func (e *Error) Detail() string {
	s := e.Error() + "\n" + e.Snippet
	if e.Hint != "" {
		s += "hint: " + e.Hint + "\n"
	}
	return s
}

// Errors are the faults of one file in the order they were found. It is never empty.
type Errors []*Error

// Error is one line for each fault.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Detail is each fault's Detail, an empty line between two.
func (es Errors) Detail() string {
	parts := make([]string, len(es))
	for i, e := range es {
		parts[i] = e.Detail()
	}
	return strings.Join(parts, "\n")
}

// Unwrap lets errors.As find the first fault.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

func (es Errors) err() error {
	if len(es) == 0 {
		return nil
	}
	return es
}

// snippet shows a line of data and a caret below its column.
func snippet(data []byte, line, column int) string {
	lines := strings.Split(string(data), "\n")
	if line > len(lines) {
		return ""
	}
	text := strings.TrimSuffix(lines[line-1], "\r")
	before := text[:min(column-1, len(text))]
	number := fmt.Sprintf("%4d | ", line)
	return number + strings.Map(printable, text) + "\n" +
		strings.Repeat(" ", len(number)-2) + "| " + strings.Map(blank, before) + "^\n"
}

func printable(r rune) rune {
	if r == '\t' || unicode.IsPrint(r) {
		return r
	}
	return '?'
}

func blank(r rune) rune {
	if r == '\t' {
		return r
	}
	return ' '
}
