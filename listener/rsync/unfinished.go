package rsync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// unfinishedFor is how long the beginning of a file waits for a run that goes on with it.
const unfinishedFor = 48 * time.Hour

// unfinished is the folder for the beginnings of files whose transfer was cut off. rsync finds them there by the last component of their path, and
// goes on from them as from any other basis of differences: the whole is verified.
func (r root) unfinished() string { return filepath.Join(r.temp, "unfinished") }

// resumes tells whether what a run could not finish is kept for the next one. A full run keeps it in the tree.
func (j Job) resumes() bool {
	return j.Way == "" && (j.Mode == Content || j.Mode == Level || j.Mode == Recursive)
}

// unconfused removes the beginnings that no run should go on from: those nobody came back for, and those that several of the listed paths would find.
// The first of these would take it from the others, whose transfer then fails.
func (p planned) unconfused() error {
	found := map[string]int{} // paths that would find it
	for _, part := range p.parts {
		for _, name := range part.names {
			found[filepath.Join(part.root.unfinished(), filepath.Base(name))]++
		}
	}
	for at := range p.roots() {
		err := eachIn(at.unfinished(), func(dir *os.Root, e fs.DirEntry) error {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if time.Since(info.ModTime()) < unfinishedFor && found[filepath.Join(at.unfinished(), e.Name())] < 2 {
				return nil
			}
			return dir.RemoveAll(e.Name())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forget removes all beginnings: the room they take is needed, or they confuse rsync.
func (p planned) forget() (err error) {
	for at := range p.roots() {
		err = errors.Join(err, emptyDir(at.unfinished()))
	}
	return err
}
