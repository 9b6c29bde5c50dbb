package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/control"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/trigger"
)

const module = "bench"

// A site is a master with a real rsync daemon and a hub, its mirrors with their agents, and a copy that the bare tools keep.
type site struct {
	b       *bench
	dir     string
	tree    string // the master's
	copy    string
	rsyncd  *testenv.Rsyncd
	address string // of the hub
	join    enrol.Join
	hub     *daemon
	mirrors []*mirror
	second  time.Time // of the last change
}

// A mirror is one mirror.
type mirror struct {
	dir, tree string
	agent     *daemon
}

func (m *mirror) config() string   { return filepath.Join(m.dir, "etc", "mirror.toml") }
func (s *site) config() string     { return filepath.Join(s.dir, "etc", "master.toml") }
func (s *site) url() string        { return s.rsyncd.URL(module) + "/" }
func (s *site) at(p string) string { return filepath.Join(s.tree, p) }

func (s *site) control() *control.Client { return control.NewClient(filepath.Join(s.dir, "sock")) }

// newSite makes a master of a tree that make fills, with a running hub.
func (b *bench) newSite(name string, fill func(tree string) error) (*site, error) {
	dir := filepath.Join(b.dir, name)
	s := &site{b: b, dir: dir, tree: dir + ".master", copy: dir + ".copy", second: time.Now().Truncate(time.Second).Add(-24 * time.Hour)}
	if err := os.MkdirAll(s.copy, 0o755); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := fill(s.tree); err != nil {
		return nil, err
	}
	say("  %s: tree made in %s", name, time.Since(start).Round(time.Second))
	s.rsyncd = testenv.StartRsyncd(b.T, testenv.RsyncdOptions{}, testenv.Module{Name: module, Path: s.tree})
	s.address = fmt.Sprint("127.0.0.1:", testenv.FreePort(b.T))
	_, join, err := enrol.InitMaster(enrol.Master{
		Dir: filepath.Join(dir, "etc"), State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "sock"), Name: "master",
		Listen: s.address, Address: s.address, Modules: []enrol.Module{{Name: module, Path: s.tree, Upstream: strings.TrimSuffix(s.url(), "/")}},
	})
	if err != nil {
		return nil, err
	}
	s.join = join
	return s, s.startHub()
}

// startHub starts the hub and waits until it has its manifest.
func (s *site) startHub() (err error) {
	start := time.Now()
	if s.hub, err = s.b.start("hub", s.b.program, "hub", "-c", s.config()); err != nil {
		return err
	}
	err = s.hub.await(s.b.ctx, 10*time.Minute, "the manifest", func() bool {
		st, err := s.status()
		return err == nil && len(st.Modules) == 1 && st.Modules[0].Entries > 0 && st.Modules[0].Building == ""
	})
	say("  hub ready after %s", time.Since(start).Round(100*time.Millisecond))
	return err
}

// enrol makes a mirror, filled by plain rsync as one that is adopted.
func (s *site) enrol(name string) (*mirror, error) {
	m := &mirror{dir: filepath.Join(s.dir, name), tree: s.dir + "." + name} // not deep, as on a real mirror: rsync looks at each folder above
	if err := os.MkdirAll(m.tree, 0o755); err != nil {
		return nil, err
	}
	_, key, err := enrol.InitMirror(enrol.Mirror{
		Dir: filepath.Join(m.dir, "etc"), State: filepath.Join(m.dir, "state"), Socket: filepath.Join(m.dir, "sock"), Name: name,
		Join: s.join, Modules: []enrol.Module{{Name: module, Path: m.tree}},
	})
	if err == nil {
		err = enrol.AddMirror(filepath.Join(s.dir, "etc", "allowed_signers"), name, key)
	}
	if err == nil {
		err = s.full(m.tree)
	}
	s.mirrors = append(s.mirrors, m)
	return m, err
}

// startAgents starts all agents and waits until the hub knows them as current.
func (s *site) startAgents() (err error) {
	start := time.Now()
	for i, m := range s.mirrors {
		if m.agent, err = s.b.start(fmt.Sprint("agent ", i), s.b.program, "agent", "-c", m.config()); err != nil {
			return err
		}
	}
	err = s.hub.await(s.b.ctx, 10*time.Minute, "the mirrors to be current", func() bool {
		st, err := s.status()
		if err != nil || len(st.Modules[0].Mirrors) != len(s.mirrors) {
			return false
		}
		for _, m := range st.Modules[0].Mirrors {
			if m.State != trigger.Current {
				return false
			}
		}
		return true
	})
	say("  %d agents current after %s", len(s.mirrors), time.Since(start).Round(100*time.Millisecond))
	return err
}

func (s *site) status() (st trigger.Status, err error) {
	return st, s.control().Do(s.b.ctx, "GET", "/v1/status", nil, &st)
}

// publish announces names through the control socket, as the command does.
func (s *site) publish(flip bool, names []trigger.Name) (p trigger.Published, err error) {
	r := trigger.NewRequest(module, names)
	r.Flip = flip
	if flip {
		r.Expires = time.Now().Add(time.Hour)
	}
	return p, s.control().Do(s.b.ctx, "POST", "/v1/publish", r, &p)
}

// applied waits until the hub has the report of every mirror on what was published.
func (s *site) applied(p trigger.Published) (last trigger.Progress, err error) {
	ctx, cancel := context.WithTimeout(s.b.ctx, 20*time.Minute)
	defer cancel()
	q := url.Values{"module": {module}, "epoch": {string(p.Epoch)}, "serial": {fmt.Sprint(p.Serial)}, "count": {fmt.Sprint(len(s.mirrors))}}
	err = s.control().Each(ctx, "/v1/wait?"+q.Encode(), func(raw json.RawMessage) error { return json.Unmarshal(raw, &last) })
	if err == nil && !last.Done {
		err = fmt.Errorf("serial %d is not applied: %+v", p.Serial, last.Mirrors)
	}
	return last, err
}

// full is what people do today.
func (s *site) full(to string) error {
	_, err := s.b.output("", "rsync", "-a", "--delete", "--exclude=/.mirrorbus/", s.url(), to+"/")
	return err
}

// maxList is the most names in one list: rsync's receiver needs time with the square of them.
const maxList = 2000

// floor is the best that can be done by hand: exactly the changed names, sorted, in lists that rsync can take, without delays by the network.
// The names must be sorted.
func (s *site) floor(names []string, options ...string) error {
	for len(names) > 0 {
		n := min(len(names), maxList)
		argv := append([]string{"rsync", "--sockopts=TCP_NODELAY", "--from0", "--files-from=-"}, options...)
		if _, err := s.b.output(strings.Join(names[:n], "\x00")+"\x00", append(argv, s.url(), s.copy+"/")...); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// siteOf is the site with one mirror and so many files, made when it is first asked for.
func (b *bench) siteOf(files int) (*site, error) {
	if s := b.sites[files]; s != nil {
		return s, nil
	}
	s, err := b.newSite(fmt.Sprint("files-", files), func(tree string) error { return makeTree(b.ctx, tree, files) })
	if err != nil {
		return nil, err
	}
	if _, err = s.enrol("mirror"); err == nil {
		err = s.full(s.copy)
	}
	if err == nil {
		err = s.startAgents()
	}
	b.sites[files] = s
	return s, err
}
