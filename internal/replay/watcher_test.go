package replay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/replay"
)

// envWatch makes the test's binary a watcher: it is the file with what to watch.
const envWatch = "MIRRORBUS_SOAK_WATCH"

func TestMain(m *testing.M) {
	file := os.Getenv(envWatch)
	if file == "" {
		os.Exit(m.Run())
	}
	if err := watchMirrors(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// watchMirrors watches until its standard input ends and then prints its figures. It prints an empty line when it is ready.
func watchMirrors(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var w replay.Watch
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // any end is the end
		stop()
	}()
	figures, err := w.Run(ctx, func() error { _, err := fmt.Println(); return err })
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(figures))
}

// A watching is a watcher that runs.
type watching struct {
	cmd  *exec.Cmd
	in   io.Closer
	out  io.Reader
	from time.Time

	proofs bool // it looks for proofs, too
}

// startWatcher starts the watcher and waits until it knows the mirrors.
func (w *world) startWatcher() (*watching, error) {
	what := replay.Watch{Master: w.tree, Claims: w.claims, Hub: w.socket()}
	if w.source != nil { // nobody but the master knows what is announced
		what.Exported = filepath.Join(w.tree, event.ExportDir)
	}
	for _, m := range w.mirrors {
		what.Mirrors = append(what.Mirrors, replay.Watched{Name: m.name, Tree: m.tree, Socket: m.socket(), Filter: m.filter})
	}
	text, err := json.Marshal(what)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(w.dir, "watch.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), envWatch+"="+file), os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(out, make([]byte, 1))
	return &watching{cmd, in, out, time.Now(), what.Exported == ""}, err
}

// endWatcher ends the watcher and reports what it found.
func (w *world) endWatcher(x *watching) error {
	var f replay.Figures
	err := errors.Join(x.in.Close(), json.NewDecoder(x.out).Decode(&f), x.cmd.Wait())
	w.t.Logf("watched %.0f s: %d rounds, %d indexes with %d names and %d digests, %d paths with %d changes, %d serials with %d proofs; %d violations",
		time.Since(x.from).Seconds(), f.Rounds, f.Indexes, f.Named, f.Sums, f.Paths, f.Changes, f.Serials, f.Proofs, len(f.Violations))
	for _, v := range f.Violations {
		w.t.Error(v)
	}
	if f.Rounds == 0 || f.Named == 0 || f.Sums == 0 || f.Changes == 0 || x.proofs && f.Proofs == 0 {
		w.t.Errorf("the watcher did not see what it is for: %+v", f)
	}
	return err
}
