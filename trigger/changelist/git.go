package changelist

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
)

// readGit reads what git diff --name-status -z prints: a status and one name, or two for what was renamed or copied, each ended by NUL.
func readGit(in *scanner, into *changes) error {
	for {
		status, err := in.word()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, errCut) && in.n == 1 {
			return fmt.Errorf("%w, or is not separated by NULs: give git diff -z", err)
		}
		if err != nil {
			return err
		}
		if !isStatus(status) {
			return in.fault(fmt.Errorf("%.60q is no status of git diff --name-status -z", status))
		}
		path, err := gitName(in)
		if err != nil {
			return err
		}
		switch status[0] {
		case 'D':
			into.gone(path)
			continue
		case 'R', 'C':
			if status[0] == 'R' {
				into.gone(path)
			}
			if path, err = gitName(in); err != nil {
				return err
			}
		}
		into.add(event.Write, path)
	}
}

// isStatus tells whether s is one of git-diff(1)'s, but for those of paths that are not merged or not known.
func isStatus(s string) bool {
	if len(s) == 0 || len(s) > 4 || strings.Trim(s[1:], "0123456789") != "" {
		return false
	}
	switch s[0] {
	case 'A', 'D', 'T':
		return len(s) == 1
	case 'M':
		return true
	}
	return (s[0] == 'R' || s[0] == 'C') && len(s) > 1
}

func gitName(in *scanner) (string, error) {
	name, err := in.word()
	if errors.Is(err, io.EOF) {
		return "", in.fault(fmt.Errorf("the name after it is missing: %w", errCut))
	}
	if err == nil && name == "" {
		err = in.fault(errors.New("is an empty name"))
	}
	return name, err
}
