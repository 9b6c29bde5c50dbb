// Package mutants is a list of small faults in our own code and the tests that must notice each of them: make mutants. A fault that nobody notices is a
// test that is missing. It is a test and nothing else.
//
// Each entry is data: a file, a text that stands once in it, what it is replaced by, and the tests. The file is replaced for the compiler alone (go
// build -overlay); nothing of the tree changes. go test checks that the entries still fit the code, and runs a few of them.
package mutants
