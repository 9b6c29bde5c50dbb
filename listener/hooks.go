package listener

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/listener/hook"
	"github.com/mirrorbus/mirrorbus/listener/trace"
)

// hook runs an operator's command before or after a batch, in the module's directory. It finds in its environment:
//
//	MIRRORBUS_MODULE   the module's name
//	MIRRORBUS_SERIAL   the last serial of the batch
//	MIRRORBUS_STAGE    pre or post
//	MIRRORBUS_PATHS    a file with the names of the batch, each ended by a NUL byte; removed when the command has ended. It is empty, and the serial the one
//	                   before, for what a push brought that named nothing
//	MIRRORBUS_PUSH     for what a push brought that named nothing: all, or mhop if it is content that mirrors below are to have before the push is done
//	MIRRORBUS_FILES    post: files transferred
//	MIRRORBUS_BYTES    post: bytes of content received
//	MIRRORBUS_DELETED  post: names removed
//	MIRRORBUS_OUTCOME  post: applied or failed
//	MIRRORBUS_ERROR    post: why it failed
//
// A pre hook that fails ends the batch, which is tried again. A post hook that fails is logged; what was applied is carried on before it runs, for a tier below
// that it may push.
func (b *batch) hook(ctx context.Context, argv []string, stage string, outcome error) error {
	if len(argv) == 0 {
		return nil
	}
	b.w.stage(stage + " hook")
	paths, err := b.pathFile()
	if err != nil {
		return fmt.Errorf("%s hook: %w", stage, err)
	}
	defer os.Remove(paths) //nolint:errcheck // what stays is swept at the next start
	env := []string{
		"MIRRORBUS_MODULE=" + string(b.w.m.Name), "MIRRORBUS_SERIAL=" + strconv.FormatUint(uint64(b.through), 10), "MIRRORBUS_STAGE=" + stage,
		"MIRRORBUS_PATHS=" + paths,
	}
	if b.below != "" {
		env = append(env, "MIRRORBUS_PUSH="+b.below)
	}
	if stage == "post" {
		env = append(env, "MIRRORBUS_FILES="+strconv.FormatInt(b.done.Files, 10), "MIRRORBUS_BYTES="+strconv.FormatInt(b.done.Bytes, 10),
			"MIRRORBUS_DELETED="+strconv.FormatInt(b.done.Deleted, 10))
		env = append(env, outcomeEnv(outcome)...)
	}
	c := hook.Command{Argv: argv, Env: env, Dir: b.w.m.Dir, Timeout: b.w.m.HookTimeout, Log: b.w.log.With("serial", b.through, "stage", stage)}
	if err := c.Run(ctx); err != nil {
		return fmt.Errorf("%s hook: %w", stage, err)
	}
	return nil
}

// trace writes the module's trace file. What was applied is applied without it.
func (b *batch) trace(trigger string, now time.Time) {
	if b.w.m.Trace == "" {
		return
	}
	x := trace.Trace{Started: b.started, Finished: now, Upstream: b.w.m.Upstream, Trigger: trigger, Received: b.done.Received}
	if err := trace.Write(b.w.m.Dir, b.w.m.Trace, x); err != nil {
		b.w.log.Warn("the trace file is not written", "error", err)
	}
}

func outcomeEnv(err error) []string {
	if err == nil {
		return []string{"MIRRORBUS_OUTCOME=applied"}
	}
	return []string{"MIRRORBUS_OUTCOME=failed", "MIRRORBUS_ERROR=" + strings.ReplaceAll(err.Error(), "\x00", "?")}
}

// pathFiles is the pattern of the files that tell hooks the paths.
const pathFiles = "paths-*"

// sweepPaths removes those that a killed agent left in its state folder.
func sweepPaths(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, pathFiles))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// pathFile writes the names that the batch expects to have dealt with.
func (b *batch) pathFile() (string, error) {
	f, err := os.CreateTemp(b.w.a.o.State, pathFiles)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, r := range b.plan.Expect {
		text.WriteString(r.Path)
		text.WriteByte(0)
	}
	if _, err = f.WriteString(text.String()); err == nil {
		err = f.Close()
	} else {
		f.Close() //nolint:errcheck // the first error says it
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the first error says it
		return "", err
	}
	return f.Name(), nil
}
