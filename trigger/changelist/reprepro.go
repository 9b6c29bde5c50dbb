package changelist

import (
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// readReprepro reads the .outlog that reprepro gives to the program that --outhook names: a word and what it is about, separated by tabs, of each change
// below its outdir. docs/outsftphook.py of reprepro is what describes it.
func readReprepro(in *scanner, into *changes) error {
	return eachLine(in, func(line string) error {
		if !outlogged(into, strings.Split(line, "\t")) {
			return fmt.Errorf("%.100q is no line of reprepro's .outlog", line)
		}
		return nil
	})
}

// outlogged notes one line, or returns false if it is none.
func outlogged(into *changes, f []string) bool {
	word, args := f[0], f[1:]
	for _, a := range args[:min(2, len(args))] {
		if a == "" && !strings.HasPrefix(word, "BEGIN-") && !strings.HasPrefix(word, "END-") {
			return false
		}
	}
	switch {
	case word == "POOLNEW" && len(args) == 1:
		into.file(event.Write, args[0])
	case word == "POOLDELETE" && len(args) == 1:
		into.add(event.Gone, args[0])
	case (word == "DISTFILE" || word == "DISTSYMLINK") && len(args) == 3:
		into.file(event.Write, args[0]+"/"+args[1])
	case word == "DISTDELETE" && len(args) == 2:
		into.add(event.Gone, args[0]+"/"+args[1])
	case word == "DISTKEEP", strings.HasPrefix(word, "BEGIN-"), strings.HasPrefix(word, "END-"):
	default:
		return false
	}
	return true
}
