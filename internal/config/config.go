// Package config reads the TOML files of mirrorbus strictly: an unknown key, a wrong type, a duplicate and a bad value are each an error with
// file, line, column, the faulty line and what to do about it.
//
// A configuration is a struct of typed defaults that the file overwrites. The types of this package ([Duration], [Size], [Rate], [Path],
// [Secret]) check themselves; a struct checks what only it knows in a Validate method (see [Validator]). Parts that own their section's type,
// as each transport does, are plugged in as [Sections].
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// File reads the file path into the struct that into points to, which holds the defaults.
func File(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return Decode(path, data, into)
}

// Decode reads data, the content of the file name, into the struct that into points to. Relative paths in it are taken from name's folder. What
// is wrong with the content comes back as [Errors]: all unknown keys at once, but of wrong types and of syntax errors only the first, since
// reading ends there. After an error the content of into is of no use.
func Decode(name string, data []byte, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("decode %s: into must point to a struct, not %T", name, into)
	}
	d := &decoding{name: name, data: data}
	sections := takeSections(v.Elem())
	d.decode(into, nil)
	if len(sections) > 0 {
		d.decode(composite(sections), sections)
	}
	if len(d.faults) == 0 {
		putSections(sections)
		folder, err := filepath.Abs(filepath.Dir(name))
		if err != nil {
			return fmt.Errorf("decode %s: %w", name, err)
		}
		d.check(v, folder)
	}
	slices.SortStableFunc(d.faults, func(a, b *Error) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return d.faults.err()
}

// Effective returns v, a configuration with its defaults filled in, as TOML. Secrets show as "(secret)".
func Effective(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).SetIndentTables(false).Encode(v); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return b.Bytes(), nil
}

// A decoding is one file on its way into a struct.
type decoding struct {
	name   string
	data   []byte
	faults Errors
}

// decode reads the file into into. With only, unknown keys outside these sections are no fault.
func (d *decoding) decode(into any, only []section) {
	err := toml.NewDecoder(bytes.NewReader(d.data)).DisallowUnknownFields().Decode(into)
	var unknown *toml.StrictMissingError
	var fault *toml.DecodeError
	switch {
	case err == nil:
	case errors.As(err, &unknown):
		for i := range unknown.Errors {
			e := &unknown.Errors[i]
			if only == nil || within(e.Key(), only) {
				d.add(d.unknownKey(e, reflect.TypeOf(into)))
			}
		}
	case errors.As(err, &fault):
		d.add(d.badValue(fault, reflect.TypeOf(into)))
	default:
		d.add(d.bareValue(err, reflect.TypeOf(into)))
	}
}

// add completes e with what is known of every fault of this file. What was found twice, by the second look or through an embedded struct whose
// Validate is also that of the outer one, stays one.
func (d *decoding) add(e *Error) {
	e.File = d.name
	if slices.ContainsFunc(d.faults, func(x *Error) bool { return x.Error() == e.Error() }) {
		return
	}
	if e.Line > 0 {
		e.Snippet = snippet(d.data, e.Line, e.Column)
	}
	d.faults = append(d.faults, e)
}
