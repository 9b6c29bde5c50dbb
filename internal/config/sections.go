package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Sections is a table of which each sub-table has a type of its own, known only at run time. Before [Decode] it maps each known name to a pointer
// to a struct that holds the defaults (nil is as if the name were not known); after it, it holds those that are in the file, filled in. Unlike other fields it must be a direct field of
// the struct that Decode fills, and a section that a file repeats or misnames is an error like any other.
//
//	type Agent struct {
//		Transport config.Sections `toml:"transport"`
//	}
type Sections map[string]any

// Names lists the sections in alphabetical order.
func (s Sections) Names() []string { return slices.Sorted(maps.Keys(s)) }

// A section is a field of type Sections during a decoding. The library cannot fill values of many types in one map, so the file is read twice:
// first the field takes anything, then a struct made of the known types (see composite) is filled strictly.
type section struct {
	field reflect.Value // of type Sections
	key   string
	known Sections
}

// takeSections finds the fields of type Sections in v and empties them.
func takeSections(v reflect.Value) []section {
	var found []section
	for i := range v.NumField() {
		if v.Type().Field(i).Type != reflect.TypeFor[Sections]() {
			continue
		}
		if key, _ := keyOf(v.Type().Field(i)); key != "" {
			known := maps.Clone(v.Field(i).Interface().(Sections))
			maps.DeleteFunc(known, func(_ string, config any) bool { return config == nil })
			found = append(found, section{v.Field(i), key, known})
			v.Field(i).Set(reflect.ValueOf(Sections{}))
		}
	}
	return found
}

// composite returns a pointer to a struct that has each section's table, with the known types in it.
func composite(sections []section) any {
	tables := make([]reflect.Value, len(sections))
	for i, s := range sections {
		tables[i] = s.table()
	}
	return structOf(func(i int) string { return sections[i].key }, tables).Addr().Interface()
}

func (s section) table() reflect.Value {
	names := s.known.Names()
	values := make([]reflect.Value, len(names))
	for i, name := range names {
		values[i] = reflect.ValueOf(s.known[name])
	}
	return structOf(func(i int) string { return names[i] }, values)
}

// structOf makes a struct that holds the values under these keys.
func structOf(key func(int) string, values []reflect.Value) reflect.Value {
	fields := make([]reflect.StructField, len(values))
	for i, v := range values {
		fields[i] = reflect.StructField{
			Name: "F" + strconv.Itoa(i), Type: v.Type(), Tag: reflect.StructTag(fmt.Sprintf("toml:%q", key(i))),
		}
	}
	s := reflect.New(reflect.StructOf(fields)).Elem()
	for i, v := range values {
		s.Field(i).Set(v)
	}
	return s
}

// within tells whether key belongs to one of the sections.
func within(key toml.Key, sections []section) bool {
	return slices.ContainsFunc(sections, func(s section) bool { return len(key) > 1 && strings.EqualFold(key[0], s.key) })
}

// putSections puts those of the known sections that are in the file where the generic ones are.
func putSections(sections []section) {
	for _, s := range sections {
		generic := s.field.Interface().(Sections).Names()
		typed := Sections{}
		for name, config := range s.known {
			if slices.ContainsFunc(generic, func(n string) bool { return strings.EqualFold(n, name) }) {
				typed[name] = config
			}
		}
		s.field.Set(reflect.ValueOf(typed))
	}
}
