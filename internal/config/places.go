package config

import (
	"encoding"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// places maps each key of a file, its parts joined by NUL, to where its value stands, or the key itself if the value is a table or an array.
// The library tells places only of what it could not read; Validate and paths need them for what it could.
type places map[string]spot

type spot struct {
	line, column int
	key          []string
	bare         string // the TOML type of a value without quotes or brackets, "" for others
	text         string // that value
}

// nearest returns where key stands or, if it is not in the file, the table it would be in; 0 if that is the whole file.
func (p places) nearest(key []string) (line, column int) {
	for n := len(key); n > 0; n-- {
		if at, ok := p[place(key[:n])]; ok {
			return at.line, at.column
		}
	}
	return 0, 0
}

func place(key []string) string { return strings.ToLower(strings.Join(key, "\x00")) }

// findKeys reads the places of all keys in data, up to the first that is not TOML.
func findKeys(data []byte) places {
	found := places{}
	var p unstable.Parser
	p.Reset(data)
	f := finder{found, &p, map[string]int{}}
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.KeyValue:
			f.value(table, e)
		case unstable.Table:
			table = f.add(nil, e)
		case unstable.ArrayTable:
			name := f.add(nil, e)
			table = append(slices.Clone(name), elementKey(f.count[place(name)]))
			f.count[place(name)]++
			found[place(table)] = found[place(name)]
		}
	}
	return found
}

// A finder is findKeys at work.
type finder struct {
	places
	parser *unstable.Parser
	count  map[string]int // the elements so far of each array of tables
}

// add notes the key of e below table and returns it whole.
func (f finder) add(table []string, e *unstable.Node) []string {
	key := slices.Clone(table)
	for it := e.Key(); it.Next(); {
		if n := f.count[place(key)]; n > 0 { // the key goes on inside the last element
			key = append(key, elementKey(n-1))
		}
		key = append(key, string(it.Node().Data))
		f.note(key, it.Node().Raw, "")
	}
	return key
}

func (f finder) note(key []string, at unstable.Range, bare string) {
	start := f.parser.Shape(at).Start
	f.places[place(key)] = spot{start.Line, start.Column, slices.Clone(key), bare, string(f.parser.Raw(at))}
}

// value notes a key, its value and what that holds.
func (f finder) value(table []string, e *unstable.Node) {
	f.inside(f.add(table, e), e.Value())
}

func (f finder) inside(key []string, value *unstable.Node) {
	n := 0
	switch value.Kind {
	case unstable.InlineTable:
		for it := value.Children(); it.Next(); {
			f.value(key, it.Node())
		}
	case unstable.Array:
		for it := value.Children(); it.Next(); n++ {
			element := append(slices.Clone(key), elementKey(n))
			f.places[place(element)] = f.places[place(key)]
			f.inside(element, it.Node())
		}
	case unstable.Integer, unstable.Float, unstable.Bool:
		f.note(key, value.Raw, strings.ToLower(strings.Replace(value.Kind.String(), "Bool", "boolean", 1)))
	case unstable.String:
		f.note(key, value.Raw, "")
	}
}

// bareValue describes an error that the library returns without a place: mostly a number where a type of this package reads a string.
func (d *decoding) bareValue(err error, root reflect.Type) *Error {
	f := &Error{Problem: trimPrefix(err)}
	for _, at := range findKeys(d.data) {
		if at.bare == "" || f.Line > 0 && (at.line > f.Line || at.line == f.Line && at.column > f.Column) {
			continue
		}
		if t := typeAt(root, at.key); t != nil && refuses(t, at.text) {
			f.Line, f.Column, f.Key = at.line, at.column, dotted(at.key)
			f.Problem = "\"" + f.Key + "\" must be " + kindName(t) + ", not " + article(at.bare)
		}
	}
	return f
}

// refuses tells whether t reads itself from text, and not from this one.
func refuses(t reflect.Type, text string) bool {
	u, ok := reflect.New(deref(t)).Interface().(encoding.TextUnmarshaler)
	return ok && u.UnmarshalText([]byte(text)) != nil
}
