package bench_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// A poller is a mirror that hears nothing: now and then it looks at its upstream, as cron would have it do. Both it and rsync by hand reach the master through a
// proxy that counts.
type poller struct {
	*site
	config string
	proxy  *testenv.Proxy
}

// poller makes a master with a small module and a mirror that has adopted it.
func (b *bench) poller(name string) (*poller, error) {
	s, err := b.newSite(name, func(tree string) error { return makeTree(b.ctx, tree, b.small) })
	if err != nil {
		return nil, err
	}
	m, err := s.enrol("mirror")
	if err == nil {
		err = s.full(s.copy)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(m.config())
	if err != nil {
		return nil, err
	}
	own, _, cut := strings.Cut(string(text), "[transport.")
	if !cut {
		return nil, fmt.Errorf("%s has no transport to be left out", m.config())
	}
	p := &poller{site: s, config: filepath.Join(filepath.Dir(m.config()), "alone.toml"), proxy: testenv.StartProxy(b.T, s.rsyncd.Port)}
	own = strings.ReplaceAll(own, fmt.Sprintf("127.0.0.1:%d", s.rsyncd.Port), fmt.Sprintf("127.0.0.1:%d", p.proxy.Port))
	if err := os.WriteFile(p.config, []byte(own), 0o644); err != nil {
		return nil, err
	}
	took, _, err := p.poll()
	say("  adopted in %s", took.Round(time.Millisecond))
	return p, err
}

// poll looks once and brings what is missing.
func (p *poller) poll() (time.Duration, testenv.Traffic, error) {
	return counted(p.proxy, func() error {
		_, err := p.b.output("", p.b.program, "poll", "-c", p.config)
		return err
	})
}

// fullRsync is what people do today.
func (p *poller) fullRsync() (time.Duration, testenv.Traffic, error) {
	return counted(p.proxy, func() error {
		_, err := p.b.output("", "rsync", "-a", "--delete", "--exclude=/.mirrorbus/", p.proxy.URL(module), p.copy+"/")
		return err
	})
}

func counted(proxy *testenv.Proxy, f func() error) (time.Duration, testenv.Traffic, error) {
	before, start := proxy.Traffic(), time.Now()
	err := f()
	return time.Since(start), proxy.Traffic().Minus(before), err
}

// A looking is one way to find out that nothing has changed, and what it costs.
type looking struct {
	name    string
	pid     int // of the rsync daemon that is asked
	look    func() (time.Duration, testenv.Traffic, error)
	took    []time.Duration
	traffic testenv.Traffic
	calls   int
}

// nullPoll is line 16: nothing has changed, and a mirror finds that out.
func (b *bench) nullPoll() error {
	p, err := b.poller("null")
	if err != nil {
		return err
	}
	all := []*looking{{name: "mirrorbus poll", pid: p.rsyncd.PID(), look: p.poll},
		{name: fmt.Sprintf("null rsync of %d files", b.small), pid: p.rsyncd.PID(), look: p.fullRsync}}
	if qfm, err := p.quickFedoraMirror(); err != nil {
		return err
	} else if qfm != nil {
		all = append(all, qfm)
	}
	for range b.rounds {
		for _, l := range all {
			took, traffic, err := l.look()
			if err != nil {
				return err
			}
			l.took, l.traffic = append(l.took, took), traffic
		}
	}
	for _, l := range all {
		calls, err := b.traced(l.pid, func() error { _, _, err := l.look(); return err })
		if err != nil {
			return err
		}
		l.calls = len(calls)
	}
	for _, other := range all[1:] {
		b.besides(all[0], other)
	}
	return nil
}

func (b *bench) besides(ours, theirs *looking) {
	for _, r := range []row{
		{what: "bytes from the master", ours: float64(ours.traffic.Down), theirs: float64(theirs.traffic.Down), unit: byteCount},
		{what: "bytes to the master", ours: float64(ours.traffic.Up), theirs: float64(theirs.traffic.Up), unit: byteCount},
		{what: "round trips", ours: float64(ours.traffic.Turns), theirs: float64(theirs.traffic.Turns), unit: count},
		{what: "system calls of the master's rsync", ours: float64(ours.calls), theirs: float64(theirs.calls), unit: count},
		{what: "time, with the start of the program", ours: median(ours.took), theirs: median(theirs.took), unit: seconds},
	} {
		r.line, r.what, r.against, r.rounds = "16", "nothing new, looked at: "+r.what, theirs.name, b.rounds
		b.add(r)
	}
}

// quickFedoraMirror follows a copy of the module with the lists that it needs, or is nil if MIRRORBUS_TEST_QFM does not name that program. Its create-filelist
// stands beside it; both need zsh and python3.
func (p *poller) quickFedoraMirror() (*looking, error) {
	program := p.b.qfm()
	if program == "" {
		return nil, nil
	}
	testenv.Need(p.b.T, "zsh")
	top, work := p.dir+".qfm", p.dir+".qfm-work"
	tree := filepath.Join(top, module)
	if err := errors.Join(os.MkdirAll(tree, 0o755), os.MkdirAll(filepath.Join(work, "dest"), 0o755), p.full(tree)); err != nil {
		return nil, err
	}
	if err := p.b.createFilelist(program, tree, tree); err != nil {
		return nil, err
	}
	rsyncd := testenv.StartRsyncd(p.b.T, testenv.RsyncdOptions{}, testenv.Module{Name: "top", Path: top}, testenv.Module{Name: module, Path: tree})
	proxy := testenv.StartProxy(p.b.T, rsyncd.Port)
	conf := filepath.Join(work, "conf")
	text := fmt.Sprintf("DESTD=%s/dest\nTIMEFILE=%[1]s/time\nREMOTE=rsync://127.0.0.1:%d\nMASTERMODULE=top\nMODULES=(%s)\nMODULEMAPPING=(%[3]s %[3]s)\nVERBOSE=0\n"+
		"EXTRAFILES=(fullfilelist)\nFILTEREXP=\n", work, proxy.Port, module)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	l := &looking{name: "null run of quick-fedora-mirror", pid: rsyncd.PID()}
	l.look = func() (time.Duration, testenv.Traffic, error) {
		return counted(proxy, func() error {
			_, err := p.b.output("", "zsh", program, "-c", conf)
			return err
		})
	}
	_, _, err := l.look() // fills its copy
	return l, err
}

// qfm is quick-fedora-mirror, or "" if MIRRORBUS_TEST_QFM does not name it: nobody packages it.
func (b *bench) qfm() string {
	program := os.Getenv("MIRRORBUS_TEST_QFM")
	if program == "" {
		say("  without quick-fedora-mirror: MIRRORBUS_TEST_QFM does not name it")
	}
	return program
}

// createFilelist makes the lists that quick-fedora-mirror needs of a tree, into a folder.
func (b *bench) createFilelist(program, tree, into string) error {
	testenv.Need(b.T, "python3")
	list := "fullfiletimelist-" + module
	_, err := b.output("", "python3", filepath.Join(filepath.Dir(program), "create-filelist"), "-c", "-S", "fullfilelist", "-S", list, "-d", tree,
		"-t", filepath.Join(into, list), "-f", filepath.Join(into, "fullfilelist"))
	return err
}
