// Package fuzz runs the fuzz targets of all packages one after the other and tells what each cost: make fuzz. It is a test and nothing else.
package fuzz
