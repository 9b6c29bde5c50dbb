// Package demo shows the main job of mirrorbus at work on one machine: a master with a real rsync daemon and the hub, three mirrors with their
// agents, changes of every kind, an agent that is killed half way, and at the end a comparison of all trees byte by byte.
//
// Everything runs as separate processes of the same program, with configurations made by its own init commands, in a temporary folder.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Options say how to run the demo.
type Options struct {
	Program string // the mirrorbus binary to run
	Tree    string // a folder of the user's to mirror a copy of; "" makes a tree
	Keep    bool   // leave it running until ctx ends, and leave the files
	Out     io.Writer
}

const module = "demo"

// A show is one run of the demo.
type show struct {
	Options
	dir     string
	tree    string // the master's
	rsync   string // rsync://127.0.0.1:port
	hub     string // host:port
	procs   *processes
	mirrors []*mirror
	rows    []row
}

// A mirror is one of the mirrors.
type mirror struct {
	name, dir, tree string
	excluded        string // the part of the tree that is not in its subset
	agent           *process
}

// Run runs the demo. The error says what was not identical, or what could not be run.
func Run(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp("", "mirrorbus-demo-")
	if err != nil {
		return err
	}
	s := &show{Options: o, dir: dir, tree: filepath.Join(dir, "master", "tree"), procs: newProcesses()}
	defer func() {
		err = errors.Join(err, s.procs.stopAll())
		if !o.Keep {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	start := time.Now()
	for _, step := range []func(context.Context) error{
		s.makeTree, s.startMaster, s.startMirrors, s.firstSync,
		s.publishContent, s.publishDeletion, s.publishTypeChange, s.publishFlip, s.killAndGoOn,
		s.timeFullSync, s.compare,
	} {
		if err := step(ctx); err != nil {
			return errors.Join(err, s.procs.logs(s.Out))
		}
	}
	s.timeline()
	fmt.Fprintf(s.Out, "\nAll trees are identical to the master's, modes included. The whole took %.1f s.\n", time.Since(start).Seconds())
	if o.Keep {
		return s.keep(ctx)
	}
	return nil
}

func (s *show) say(format string, args ...any) { fmt.Fprintf(s.Out, format+"\n", args...) }

// keep leaves everything running and says where to look.
func (s *show) keep(ctx context.Context) error {
	s.say("\nIt all goes on until you press Ctrl-C. Look at, in %s:\n  master/tree           change something, then: %s publish -c %s %s PATH", s.dir, s.Program, s.masterConfig(), module)
	for _, m := range s.mirrors {
		s.say("  %s/tree               %s status -c %s", m.name, s.Program, m.config())
	}
	s.say("  %s status -c %s --watch", s.Program, s.masterConfig())
	<-ctx.Done()
	return nil
}

func (s *show) masterConfig() string { return filepath.Join(s.dir, "master", "etc", "master.toml") }
func (m *mirror) config() string     { return filepath.Join(m.dir, "etc", "mirror.toml") }
