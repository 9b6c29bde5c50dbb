package trigger

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// FuzzRequest sends anything to what answers on the control socket. What becomes a path set is well formed and true, stays inside the module and
// passes no link; what does not is an error with a status.
func FuzzRequest(f *testing.F) {
	base := f.TempDir()
	testenv.WriteTree(f, base, testenv.Dir("module/d/e", 0o755), testenv.File("module/a", "x"), testenv.File("module/d/e/f", "y"), testenv.File("outside", "z"))
	root := filepath.Join(base, "module")
	for link, to := range map[string]string{"out": base, "in": "d", "d/up": ".."} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			f.Fatal(err)
		}
	}
	f.Add([]byte(`{"module":"m","names":[{"path":"YQ=="},{"op":"-","path":"Yg=="},{"op":">","path":"ZA==","from":"eA=="}]}`)) // a, b, d from x
	f.Add([]byte(`{"module":"m","names":[{"path":"b3V0L291dHNpZGU="},{"path":"Li4vb3V0c2lkZQ=="}]}`))                         // out/outside, ../outside
	f.Add([]byte(`{"module":"m","flip":true,"names":[{"path":"ZC9lL2Y="}],"dry_run":true}`))                                  // d/e/f
	f.Add([]byte(`{"module":"m","names":[{"op":"rr","path":"ZA=="}],"what":1}`))
	f.Add([]byte(`{"module":"m","as_found":true,"names":[{"path":"YQ=="},{"path":"Yg=="},{"op":">","path":"ZA==","from":"eA=="},{"path":"b3V0L3g="}]}`)) // a, b, d from x, out/x
	p := &Publisher{Modules: []ModuleConfig{{Name: "m", Path: config.Path(root), PerDirectory: 2, MaxPaths: 3}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		var asked Request
		var set event.PathSet
		h := control.Handle(func(ctx context.Context, _ *http.Request, r Request) (struct{}, error) {
			m, err := p.module(r.Module)
			if err != nil {
				return struct{}{}, err
			}
			asked = r
			found, err := p.resolve(ctx, m, r)
			set = found.set
			if err != nil && fault.StatusOf(err) != fault.Usage && fault.StatusOf(err) != fault.Config {
				t.Errorf("no fault of who asks: %v", err)
			}
			return struct{}{}, err
		})
		w := httptest.NewRecorder()
		h(w, httptest.NewRequest(http.MethodPost, "/v1/publish", strings.NewReader(string(body))))
		if w.Code != http.StatusOK || set == nil {
			return
		}
		if err := set.Check(); err != nil || asked.Flip && !allMeta(set) {
			t.Fatalf("%s becomes %q: %v", body, set.Encode(), err)
		}
		for _, r := range set {
			checkInside(t, root, r)
		}
	})
}

func allMeta(s event.PathSet) bool {
	for _, r := range s {
		if r.Op != event.Meta {
			return false
		}
	}
	return true
}

// checkInside fails if a link of the module lies above the path of r, or if r does not say what is there.
func checkInside(t *testing.T, root string, r event.Record) {
	t.Helper()
	for i, c := range r.Path {
		if c != '/' {
			continue
		}
		if info, err := os.Lstat(filepath.Join(root, r.Path[:i])); err == nil && info.Mode()&os.ModeSymlink != 0 {
			t.Errorf("%q leads through a link", r.Path)
		}
	}
	_, err := os.Lstat(filepath.Join(root, r.Path))
	if (err == nil) == (r.Op == event.Gone) {
		t.Errorf("%c %q is not so: %v", r.Op, r.Path, err)
	}
}
