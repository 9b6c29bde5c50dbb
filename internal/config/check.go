package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"syscall"
)

// A Validator checks what the type of a field cannot. Decode asks every struct and value of a configuration, the inner ones first, after all are
// filled. The error is shown at the table or key it belongs to; errors made by [Fault], [Require] and [NeedFile], joined or alone, at theirs.
type Validator interface {
	Validate() error
}

// Fault returns an error for Validate about a key of the struct at hand. A hint says what to do, "" if that is plain.
func Fault(key, problem, hint string) error {
	return &Error{Key: key, Problem: problem, Hint: hint}
}

// Require returns a Fault unless value, that of key, is set.
func Require(key string, value any) error {
	if v := reflect.ValueOf(value); v.IsValid() && !v.IsZero() {
		return nil
	}
	return Fault(key, "is required", "")
}

// NeedFile returns a Fault unless path, the value of key, is a file that can be read.
func NeedFile(key string, path Path) error {
	f, err := open(string(path))
	if err != nil {
		return Fault(key, fmt.Sprintf("names %s: %s", path, reason(err)), "create it or correct the path")
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return Fault(key, fmt.Sprintf("names %s, which is not a file", path), "name a file that can be read")
	}
	return nil
}

// open does not wait for somebody to write, should path be a named pipe.
func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// reason is what an error of the os package says apart from the call and the file.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// A resolver is a value that depends on where the configuration file is.
type resolver interface {
	resolve(folder string) error
}

// check resolves and validates v and all that is in it.
func (d *decoding) check(v reflect.Value, folder string) {
	places := findKeys(d.data)
	walk(v, nil, func(v reflect.Value, key []string) {
		if r, ok := v.Interface().(resolver); ok {
			d.reject(r.resolve(folder), key, places)
		}
		if c, ok := v.Interface().(Validator); ok {
			d.reject(c.Validate(), key, places)
		}
	})
}

// reject adds the faults in err, found at key.
func (d *decoding) reject(err error, key []string, places places) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			d.reject(e, key, places)
		}
		return
	}
	if err == nil {
		return
	}
	var fault *Error
	if !errors.As(err, &fault) {
		fault = &Error{Problem: err.Error()}
	}
	if fault.Key != "" {
		key = append(key[:len(key):len(key)], strings.Split(fault.Key, ".")...)
	}
	f := &Error{Key: dotted(key), Problem: fault.Problem, Hint: fault.Hint}
	if f.Key != "" {
		f.Problem = fmt.Sprintf("%q %s", f.Key, fault.Problem)
	}
	f.Line, f.Column = places.nearest(key)
	d.add(f)
}

// walk calls visit with a pointer to every value in v that has a key, and to v itself, the inner ones first.
func walk(v reflect.Value, key []string, visit func(reflect.Value, []string)) {
	inner := func(v reflect.Value, part string) { walk(v, append(key[:len(key):len(key)], part), visit) }
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			walk(v.Elem(), key, visit)
		}
		return
	case reflect.Struct:
		for i := range v.NumField() {
			switch name, inline := keyOf(v.Type().Field(i)); {
			case inline:
				walk(v.Field(i), key, visit)
			case name != "":
				inner(v.Field(i), name)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			inner(v.Index(i), elementKey(i))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			value := reflect.New(v.Type().Elem()).Elem()
			value.Set(v.MapIndex(k))
			inner(value, fmt.Sprint(k))
			v.SetMapIndex(k, value)
		}
	}
	if v.CanAddr() && v.CanInterface() {
		visit(v.Addr(), key)
	}
}
