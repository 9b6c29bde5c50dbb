// Package source is what notices changes on a master: a source has what changed announced, so that nobody needs to.
//
//	source/scan        compares the tree with the manifest: once, or every so often; for trees that cannot be watched
//	source/watch       is told by the kernel what changes
//	source/sourcetest  the suite that each source must pass
//
// `mirrorbus publish` is a source too, of changes that somebody names.
//
// A source does not say what happened to a name, which may have changed again before it is announced. It hands over names, and what is true of each is found when
// they are announced ([trigger.Request].AsFound): gone, written, or not for mirrors. So a source may name too much, and name it twice; what it must
// not do is to miss something. Where it may have missed something it asks for a scan of the directories concerned.
//
// To add a source: a folder below this one with a type that is a [Source], or that has more to say than one, as a watcher does, and a test that runs the suite:
//
//	func TestSource(t *testing.T) {
//		sourcetest.Run(t, sourcetest.Harness{Start: func(t *testing.T, m sourcetest.Master) sourcetest.Running { … }})
//	}
package source

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/trigger"
)

// A Source has the changes of one module announced.
type Source interface {
	// Run has a announce what changes, until ctx ends, or as far as it sees at once if it is of that kind. It begins with what changed while no source ran.
	Run(ctx context.Context, a Announcer) error
}

// An Announcer makes changes known. Of names AsFound and of a scan nothing may be left to announce, which is no error.
type Announcer interface {
	Publish(ctx context.Context, r trigger.Request) (trigger.Published, error)
	Scan(ctx context.Context, r trigger.ScanRequest, send func(trigger.Scanned) error) error
}

var (
	_ Announcer = (*trigger.Hub)(nil)
	_ Announcer = Remote{}
)

// Remote is the hub behind a control socket.
type Remote struct{ Client *control.Client }

// Publish implements Announcer.
func (r Remote) Publish(ctx context.Context, req trigger.Request) (done trigger.Published, err error) {
	err = r.Client.Do(ctx, "POST", "/v1/publish", req, &done)
	return done, err
}

// Scan implements Announcer.
func (r Remote) Scan(ctx context.Context, req trigger.ScanRequest, send func(trigger.Scanned) error) error {
	return r.Client.StreamOf(ctx, "POST", "/v1/scan", req, func(raw json.RawMessage) error {
		var s trigger.Scanned
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("answer of the hub: %w", err)
		}
		return send(s)
	})
}
