package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each command on the pages for users is one that the program has, with those options; and those that stand in blocks could be run as they are.
func TestCommandsOfThePages(t *testing.T) {
	for page, least := range map[string]int{"README.md": 18, "deploy/README.md": 18, "deploy/hooks/README.md": 5} {
		text, err := os.ReadFile(filepath.Join("../..", page))
		if err != nil {
			t.Fatal(err)
		}
		lines := commandLines(string(text))
		if len(lines) < least {
			t.Errorf("%s: %d commands are found, there should be %d or more", page, len(lines), least)
		}
		for _, line := range lines {
			if err := line.check(); err != nil {
				t.Errorf("%s: mirrorbus %s: %v", page, line.text, err)
			}
		}
	}
}

// What the pages must not say is noticed.
func TestCommandsThatThereAreNot(t *testing.T) {
	for _, text := range []string{"pubish fedora", "publish", "scan fedora --wait", "mirror ad x", "compose begin a b", "agent synk x", "publish fedora --form x | cat"} {
		if err := (commandLine{text, true}).check(); err == nil {
			t.Errorf("mirrorbus %s is taken for a command", text)
		}
	}
}

// A commandLine is what follows the word mirrorbus.
type commandLine struct {
	text  string
	whole bool // and not just the name of a command, perhaps with an option
}

var (
	inlineCode = regexp.MustCompile("`mirrorbus ([a-z][^`]*)`")
	inBlock    = regexp.MustCompile(`(?:^| )mirrorbus ([a-z].*)$`)
)

// commandLines are those of a page: on lines of code blocks, and in code within the text.
func commandLines(page string) (all []commandLine) {
	block := false
	for line := range strings.Lines(page) {
		line = strings.TrimRight(line, "\n")
		switch m := inBlock.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "```"):
			block = !block
		case block && m != nil:
			all = append(all, commandLine{strings.TrimPrefix(m[1], "mirrorbus "), true}) // sudo -u mirrorbus mirrorbus …
		case !block:
			for _, m := range inlineCode.FindAllStringSubmatch(line, -1) {
				all = append(all, commandLine{m[1], false})
			}
		}
	}
	return all
}

// check says what the program would not take of it.
func (l commandLine) check() error {
	c, rest, err := (&app{}).root().Find(words(l.text))
	if err != nil {
		return err
	}
	if !c.HasParent() || !c.Runnable() {
		return errors.New("there is no such command")
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if l.whole || c.HasSubCommands() {
		return c.ValidateArgs(c.Flags().Args())
	}
	return nil
}

// words splits a line as a shell does, up to what ends a command.
func words(line string) (all []string) {
	var word strings.Builder
	quoted, begun := false, false
	end := func() {
		if begun {
			all = append(all, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, c := range line {
		switch {
		case c == '\'':
			quoted, begun = !quoted, true
		case quoted || !strings.ContainsRune(" |;&<>#()", c):
			word.WriteRune(c)
			begun = true
		case c == ' ':
			end()
		default:
			end()
			return all
		}
	}
	end()
	return all
}
