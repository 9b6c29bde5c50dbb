// Package archtest keeps the shape of the house: its test fails when a package imports what it must not, or says nothing about itself.
package archtest
