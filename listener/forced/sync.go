package forced

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/listener"
)

// Told is what a push says that does not say what has changed: the words that Debian's runmirrors sends.
type Told struct {
	Archive  string // "" if it names none
	Whole    bool   // everything; else only the first stage, which is content
	Callback bool   // whoever pushed wants to hear when it is done
	Hops     bool   // of the first stage: mirrors below are to have it as well before it is done
}

// The words. What comes after the prefix is one of these, or "archive:" and a name.
const (
	syncWord    = "sync:"
	archiveWord = syncWord + "archive:"
)

var syncWords = []string{"sync:all", "sync:stage1", "sync:stage2", "sync:callback", "sync:mhop"}

// NotDone is the exit status of such a push that was refused or has failed: the only one that runmirrors does not take for success.
const NotDone = 255

// parseSync reads the words of a push, which may come in any order, but each once. With both stages, or none, it is about everything.
func parseSync(command string) (t Told, err error) {
	words := strings.Split(strings.Trim(command, " "), " ")
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" }) // runmirrors puts two spaces between some
	named := false
	for i, w := range words {
		name, isArchive := strings.CutPrefix(w, archiveWord)
		switch {
		case isArchive && !named && listener.IsArchive(name):
			t.Archive, named = name, true
		case isArchive || !slices.Contains(syncWords, w) || slices.Contains(words[:i], w):
			return t, fault.With(fmt.Errorf("push %.80q: word %.40q is not known, or one too many", command, w), NotDone, syncGrammar)
		}
	}
	has := func(w string) bool { return slices.Contains(words, w) }
	t.Whole = has("sync:all") || has("sync:stage2") || !has("sync:stage1")
	t.Callback, t.Hops = has("sync:callback"), has("sync:mhop") && !t.Whole
	return t, nil
}

const syncGrammar = `the words are sync:archive:NAME, sync:all, sync:stage1, sync:stage2, sync:callback and sync:mhop`
