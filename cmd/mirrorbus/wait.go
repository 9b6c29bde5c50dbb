package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/trigger"
)

func (a *app) waitCommand() *cobra.Command {
	var count string
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "wait MODULE [SERIAL]",
		GroupID: "master",
		Short:   "wait until mirrors have a serial",
		Long:    "Waits until mirrors have applied a serial, the newest one unless another is given, as publish --wait does.",
		Example: "  mirrorbus wait fedora\n  mirrorbus wait fedora 1042 --count 30 --timeout 1h",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			conf, err := a.masterConfig()
			if err != nil {
				return err
			}
			serial := event.Serial(0)
			if len(args) == 2 {
				if serial, err = event.ParseSerial(args[1]); err != nil {
					return usage(err, "")
				}
			}
			return a.wait(c.Context(), control.NewClient(string(conf.Socket)), event.Module(args[0]), "", serial, count, timeout)
		},
	}
	c.Flags().StringVar(&count, "count", "all", "until `N` mirrors have it, or all that are not away")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "wait this `LONG` at most, then exit with 75")
	c.Flags().BoolVar(&a.json, "json", false, "print each step as a line of JSON")
	return c
}

// wait follows a serial until enough mirrors have it. Serial 0 is the newest.
func (a *app) wait(ctx context.Context, client *control.Client, m event.Module, e event.Epoch, s event.Serial, count string, timeout time.Duration) error {
	n, err := parseWait(count)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaitedEnough)
	defer cancel()
	q := url.Values{"module": {string(m)}, "epoch": {string(e)}, "serial": {strconv.FormatUint(uint64(s), 10)}, "count": {strconv.Itoa(n)}}
	var last trigger.Progress
	view := a.newProgressView()
	err = client.Each(ctx, "/v1/wait?"+q.Encode(), func(raw json.RawMessage) error {
		if err := json.Unmarshal(raw, &last); err != nil {
			return err
		}
		return view.show(raw, last)
	})
	view.end()
	switch {
	case last.Done:
		return nil
	case errors.Is(context.Cause(ctx), errWaitedEnough):
		return a.gaveUp(last, n, timeout)
	case err != nil:
		return err
	}
	return context.Cause(ctx)
}

var errWaitedEnough = errors.New("waited long enough")

// gaveUp says who is missing of the n that were asked for (0 is all), and tells by its status a mirror that failed from one that needs longer.
func (a *app) gaveUp(p trigger.Progress, n int, timeout time.Duration) error {
	status := fault.TryAgain
	if n == 0 {
		n = p.Want
	}
	var missing []string
	for _, m := range p.Mirrors {
		switch {
		case m.Has || m.Away:
			continue
		case m.Error != "":
			status = fault.Failed
			missing = append(missing, fmt.Sprintf("%s (%s: %s)", m.Mirror, m.Outcome, m.Error))
		default:
			missing = append(missing, m.Mirror)
		}
	}
	rest := "no mirror is left that could"
	if len(missing) > 0 {
		rest = "not yet " + strings.Join(missing, ", ")
	}
	return fault.With(fmt.Errorf("serial %d: %d of %d mirrors have it after %s, %s", p.Serial, p.Have, n, timeout, rest),
		status, "they go on by themselves; see mirrorbus status, or mirrorbus wait")
}
