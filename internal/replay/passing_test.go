package replay_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path"
)

// envPassing has files come and go between announcements. A mirror that is behind and reads a directory as a whole may meet one that nobody ever announces, and
// keep it: so they are not there by default.
const envPassing = "MIRRORBUS_SOAK_PASSING"

// A passer makes files that come and go, as programs do that write under another name first. They lie in directories that are announced just then, where a
// mirror may meet them.
type passer struct {
	tree  *os.Root
	rng   *rand.Rand
	there []string
	made  int
}

// next removes some of those that are there, and makes others where paths are.
func (p *passer) next(paths []string) {
	var left []string
	for _, name := range p.there {
		if p.rng.IntN(2) == 0 {
			left = append(left, name)
		} else {
			p.remove(name)
		}
	}
	p.there = left
	for range p.rng.IntN(3) {
		if len(paths) == 0 {
			break
		}
		dir := paths[p.rng.IntN(len(paths))]
		if fi, err := p.tree.Lstat(dir); err != nil || !fi.IsDir() {
			dir = path.Dir(dir)
		}
		p.made++
		name := path.Join(dir, fmt.Sprintf(".passing-%d", p.made))
		if p.tree.WriteFile(name, fmt.Append(nil, "passing ", p.made), 0o644) == nil { // else its directory is gone, or not for us
			p.there = append(p.there, name)
		}
	}
}

func (p *passer) remove(name string) {
	p.tree.Remove(name) //nolint:errcheck // it may have gone, or come under another name, with its directory
}

// end removes all that are there.
func (p *passer) end() {
	for _, name := range p.there {
		p.remove(name)
	}
}
