package config

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/pelletier/go-toml/v2"
)

// unknownKey describes a key that root, the type that the file was read into, has no field for.
func (d *decoding) unknownKey(e *toml.DecodeError, root reflect.Type) *Error {
	line, column := e.Position()
	key := e.Key()
	f := &Error{Line: line, Column: column, Key: dotted(key)}
	// The library reports the whole key; what is unknown is its first part that leads nowhere.
	at := root
	for i, part := range key {
		next := child(at, part)
		if next != nil {
			at = next
			continue
		}
		what := "key"
		if i < len(key)-1 || strings.HasPrefix(e.Error(), "toml: missing table") {
			what = "table"
		}
		f.Problem = fmt.Sprintf("unknown %s %q", what, part)
		if i > 0 {
			f.Problem += fmt.Sprintf(" in %q", dotted(key[:i]))
		}
		if len(key) > 1 || !inlineAt(d.data, line, column) {
			f.Hint = nearest(part, keys(at))
		}
		return f
	}
	f.Problem = fmt.Sprintf("unknown key %q", f.Key)
	return f
}

// inlineAt tells whether the key at this place stands in an inline table: then the library does not say in which.
func inlineAt(data []byte, line, column int) bool {
	lines := strings.Split(string(data), "\n")
	return line <= len(lines) && strings.Contains(lines[line-1][:min(column-1, len(lines[line-1]))], "{")
}

// Messages of the library that are said better with what the schema knows.
var (
	wrongType  = regexp.MustCompile(`(?s)^toml: cannot decode TOML ([a-z ]+) into .*of type (.*)$`)
	wrongTable = regexp.MustCompile(`^toml: cannot store (a table|an array table) in an? `)
	outOfRange = regexp.MustCompile(`^toml: (?:negative )?[a-z]+ value (\S+) cannot be stored in `)
	noValue    = regexp.MustCompile(`^toml: unexpected character .* at start of value`)
	defined    = regexp.MustCompile(`^toml: (?:key|table) .* (?:is already defined|already exists)`)
)

// badValue describes a value, or a whole file, that could not be read.
func (d *decoding) badValue(e *toml.DecodeError, root reflect.Type) *Error {
	line, column := e.Position()
	f := &Error{Line: line, Column: column, Key: dotted(e.Key()), Problem: trimPrefix(e)}
	if noValue.MatchString(e.Error()) {
		f.Problem, f.Hint = "expected a value", `a string stands in quotes: key = "value"`
	}
	if f.Key == "" {
		return f
	}
	want := typeAt(root, e.Key())
	if m := wrongType.FindStringSubmatch(e.Error()); m != nil {
		if want != nil && deref(want).Kind() == reflect.Slice && !strings.HasPrefix(m[2], "[]") {
			want = deref(want).Elem()
		}
		f.Problem = fmt.Sprintf("%q must be %s, not %s", f.Key, kindName(want), article(m[1]))
		return f
	}
	if m := wrongTable.FindStringSubmatch(e.Error()); m != nil {
		f.Problem = fmt.Sprintf("%q must be %s, not %s", f.Key, kindName(want), strings.Replace(m[1], "array table", "array of tables", 1))
		return f
	}
	if m := outOfRange.FindStringSubmatch(e.Error()); m != nil {
		f.Problem = fmt.Sprintf("%q: %s is out of range", f.Key, m[1])
		return f
	}
	if defined.MatchString(e.Error()) {
		f.Problem = fmt.Sprintf("%q stands here a second time", f.Key)
		f.Hint = "leave out one of the two"
		return f
	}
	f.Problem = fmt.Sprintf("%q: %s", f.Key, f.Problem)
	return f
}

// kindName says what a value of type t looks like in TOML.
func kindName(t reflect.Type) string {
	if t == nil {
		return "something else"
	}
	t = deref(t)
	text := isText(t)
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if text {
			return "an integer or a string in quotes"
		}
		return "an integer"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string in quotes"
	case reflect.Slice, reflect.Array:
		if deref(t.Elem()).Kind() == reflect.Struct {
			return "an array of tables"
		}
		return "an array"
	case reflect.Struct, reflect.Map:
		if text {
			return "a string in quotes"
		}
		return "a table"
	}
	return "something else"
}

// isText tells whether values of type t are read from a string by a method of their own.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(deref(t)).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func article(noun string) string {
	if strings.ContainsAny(noun[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

// nearest is a hint that offers the known key most like key, or all of them if none is and they are few.
func nearest(key string, known []string) string {
	best, distance := "", len(key)/3+2
	for _, k := range known {
		if n := levenshtein.ComputeDistance(strings.ToLower(key), strings.ToLower(k)); n < distance {
			best, distance = k, n
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %q?", best)
	case len(known) == 0:
		return ""
	case len(known) <= 12:
		return "known here: " + strings.Join(known, ", ")
	}
	return ""
}

// keys lists the keys of the table that t is read from, in alphabetical order.
func keys(t reflect.Type) []string {
	var names []string
	if t = element(t); t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		name, inline := keyOf(t.Field(i))
		switch {
		case inline:
			names = append(names, keys(t.Field(i).Type)...)
		case name != "":
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// keyOf returns the key of a struct's field: "" if it has none, inline if its own fields stand in its place.
func keyOf(f reflect.StructField) (name string, inline bool) {
	name, _, _ = strings.Cut(f.Tag.Get("toml"), ",")
	switch {
	case name == "-":
		return "", false
	case f.Anonymous && name == "" && deref(f.Type).Kind() == reflect.Struct:
		return "", true
	case !f.IsExported():
		return "", false
	case name == "":
		return f.Name, false
	}
	return name, false
}

// child returns the type that key is read into in a table of type t, nil if there is none. Keys are found in any case, as the library does.
func child(t reflect.Type, key string) reflect.Type {
	if isElement(key) {
		if k := deref(t).Kind(); k != reflect.Slice && k != reflect.Array {
			return nil
		}
		return deref(t).Elem()
	}
	if t = element(t); t.Kind() == reflect.Map {
		return t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, inline := keyOf(f)
		if inline {
			if found := child(f.Type, key); found != nil {
				return found
			}
		} else if name != "" && strings.EqualFold(name, key) {
			return f.Type
		}
	}
	return nil
}

func typeAt(t reflect.Type, key []string) reflect.Type {
	for _, part := range key {
		if t = child(t, part); t == nil {
			return nil
		}
	}
	return t
}

// element returns what an array of t's, an array of arrays of t's, and t itself hold.
func element(t reflect.Type) reflect.Type {
	for t = deref(t); t.Kind() == reflect.Slice || t.Kind() == reflect.Array; {
		t = deref(t.Elem())
	}
	return t
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// The elements of an array have a part of the key too, which people do not get to see: they have the line.
func elementKey(i int) string    { return "[" + strconv.Itoa(i) + "]" }
func isElement(part string) bool { return strings.HasPrefix(part, "[") }

func dotted(key []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(key), isElement), ".")
}

func trimPrefix(err error) string { return strings.TrimPrefix(err.Error(), "toml: ") }
