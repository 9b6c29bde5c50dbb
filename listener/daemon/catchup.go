package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mirrorbus/mirrorbus/event"
	"github.com/mirrorbus/mirrorbus/internal/doctor"
	"github.com/mirrorbus/mirrorbus/internal/export"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/internal/filter"
	"github.com/mirrorbus/mirrorbus/listener"
	"github.com/mirrorbus/mirrorbus/listener/catchup"
	"github.com/mirrorbus/mirrorbus/listener/rsync"
)

// source reads what the upstream of a module exports.
func (d *Daemon) source(c listener.ModuleConfig, r *rsync.Runner, rules *filter.Rules) *catchup.Source {
	s := &catchup.Source{
		Module: event.Module(c.Name), Fetcher: catchup.Rsync{Runner: r}, From: c.Upstream, State: stateFile(d.conf, "upstream", c.Name),
		Tree: string(c.Path), Rules: rules, Mask: 0o6000,
	}
	for _, l := range c.FollowLinks {
		s.Links = append(s.Links, strings.Trim(l, "/"))
	}
	return s
}

// A Finding is one name of a tree that is not as the manifest says.
type Finding struct {
	Path string       `json:"path"` // Go-quoted if it is not printable
	Kind catchup.Kind `json:"kind"` // missing, modified, mode or extra
	What string       `json:"what,omitempty"`
}

// Verify compares a module's tree with the upstream's manifest and hands each difference to found. With checksum it then lets rsync compare the
// content of every other file with the upstream's, which both sides read in full.
func (d *Daemon) Verify(ctx context.Context, name event.Module, checksum bool, found func(Finding) error) (err error) {
	c, r := d.configOf(name), d.runners[name]
	switch {
	case c.Name == "":
		return fault.With(fmt.Errorf("module %q is not one of this mirror's", name), fault.Usage, "mirrorbus status lists them")
	case r == nil:
		return fault.With(fmt.Errorf("module %s has no upstream to be compared with", name), fault.Config, "give it an upstream")
	}
	if err := d.beginVerify(name); err != nil {
		return err
	}
	defer d.endVerify(name)
	rules, err := subset(c)
	if err != nil {
		return err
	}
	s := d.source(c, r, rules)
	s.State += ".verify" // the agent's own may be in use
	head, err := d.upstreamHead(ctx, s, true)
	if err != nil {
		return err
	}
	m, err := s.Manifest(ctx, head)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	told := map[string]bool{}
	var links []catchup.Finding
	for f, err := range s.Differences(ctx, m, false) {
		if err != nil {
			return err
		}
		told[f.Record.Path] = f.Kind != catchup.Mode
		if !c.UnsafeLinks && f.Kind != catchup.Extra && f.Record.Mode&event.ModeType == event.ModeLink {
			links = append(links, f)
			continue
		}
		if err := found(Finding{printable(f.Record.Path), f.Kind, f.What}); err != nil {
			return err
		}
	}
	if err := verifyLinks(ctx, r, links, found); err != nil || !checksum {
		return err
	}
	return verifyContent(ctx, r, m, func(rec event.Record) bool { return rules.Included(rec.Path, false) && !told[rec.Path] }, found)
}

// beginVerify allows one verification of a module at a time: it has one folder for what it fetches.
func (d *Daemon) beginVerify(name event.Module) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.verifying[name] {
		return fault.With(fmt.Errorf("module %s is being verified already", name), fault.TryAgain, "try again when that has ended")
	}
	d.verifying[name] = true
	return nil
}

func (d *Daemon) endVerify(name event.Module) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.verifying, name)
}

// verifyLinks finds the links that are wrong among those that differ: the others lead out of the module, and this mirror leaves such out. Only
// rsync can tell, since a manifest does not say where links lead.
func verifyLinks(ctx context.Context, r *rsync.Runner, links []catchup.Finding, found func(Finding) error) error {
	if len(links) == 0 {
		return nil
	}
	job := rsync.Job{Mode: rsync.Verify}
	for _, l := range links {
		job.Paths = append(job.Paths, l.Record.Path)
	}
	res, err := r.Run(ctx, job)
	var failed *rsync.Error
	if err != nil && !(errors.As(err, &failed) && failed.Class == rsync.Partial) {
		return err
	}
	leftOut := map[string]bool{}
	for _, path := range res.Unsafe {
		leftOut[path] = true
	}
	for _, l := range links {
		if leftOut[l.Record.Path] {
			continue
		}
		if err := found(Finding{printable(l.Record.Path), l.Kind, l.What}); err != nil {
			return err
		}
	}
	return nil
}

// verifyContent has rsync compare the content of those of the manifest's files that are wanted, as many at a time as one list holds.
func verifyContent(ctx context.Context, r *rsync.Runner, m *catchup.Manifest, wanted func(event.Record) bool, found func(Finding) error) error {
	var names []string
	compare := func() error {
		res, err := r.Run(ctx, rsync.Job{Mode: rsync.Verify, Paths: names, Checksum: true})
		names = names[:0]
		if err != nil {
			return err
		}
		for _, i := range res.Items {
			if i.Op == rsync.Received && !i.Dir {
				if err := found(Finding{printable(i.Path), catchup.Modified, "content, by checksum"}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for rec, err := range m.Records() {
		if err != nil {
			return err
		}
		if rec.Op == event.Gone || rec.Mode&event.ModeType != event.ModeFile || !wanted(rec) {
			continue
		}
		if names = append(names, rec.Path); len(names) == rsync.MaxNames {
			if err := compare(); err != nil {
				return err
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return compare()
}

func (d *Daemon) configOf(name event.Module) (c listener.ModuleConfig) {
	for _, c := range d.conf.Modules {
		if c.Name == string(name) {
			return c
		}
	}
	return c
}

// upstreamHead reads and verifies the upstream's head. With manifest it brings that along.
func (d *Daemon) upstreamHead(ctx context.Context, s *catchup.Source, manifest bool) (event.Head, error) {
	line, err := s.Head(ctx, listener.Along{Manifest: manifest})
	if err != nil {
		return event.Head{}, err
	}
	sealed, err := d.gate().Open(line, d.now())
	switch {
	case err != nil:
		return event.Head{}, fmt.Errorf("the upstream's head: %w", err)
	case sealed.Head == nil || sealed.Head.Module != s.Module:
		return event.Head{}, fmt.Errorf("the upstream's head is a %s of module %s", sealed.Kind, sealed.Module())
	}
	return *sealed.Head, nil
}

// CheckRsync tries the rsync that is installed, for the doctor.
func CheckRsync(ctx context.Context, program string) doctor.Finding {
	f, err := rsync.Probe(ctx, program)
	switch {
	case err != nil:
		return doctor.Finding{Level: doctor.Bad, Detail: err.Error(), Remedy: "install rsync 3.1 or newer, or set rsync to its path"}
	case len(f.Warnings) > 0:
		return doctor.Finding{Level: doctor.Warn, Detail: f.Version + ": " + strings.Join(f.Warnings, "; ")}
	}
	return doctor.Finding{Level: doctor.OK, Detail: f.Binary + " " + f.Version}
}

// CheckUpstream reads and verifies the upstream's head, for the doctor.
func CheckUpstream(ctx context.Context, conf *listener.Config, c listener.ModuleConfig) doctor.Finding {
	bad := func(err error, remedy string) doctor.Finding {
		return doctor.Finding{Level: doctor.Bad, Detail: err.Error(), Remedy: remedy}
	}
	const config = "mend the configuration, then see: mirrorbus check"
	d, err := bare(conf)
	if err != nil {
		return bad(err, config)
	}
	features, err := rsync.Probe(ctx, conf.Rsync)
	if err != nil {
		return bad(err, "install rsync 3.1 or newer, or set rsync to its path")
	}
	r, err := d.runner(c, features)
	if err != nil {
		return bad(err, config)
	}
	s := d.source(c, r, nil)
	s.State += ".doctor"
	head, err := d.upstreamHead(ctx, s, false)
	switch {
	case errors.Is(err, export.ErrNotExported) && len(c.Push) > 0:
		return doctor.Finding{Level: doctor.OK, Detail: "it exports nothing, and is looked through as a whole when somebody pushes"}
	case errors.Is(err, export.ErrNotExported):
		return bad(err, "does the hub run on the master, and does its rsync module show .mirrorbus/?")
	case errors.Is(err, event.ErrRefused):
		return bad(err, "is the master's key in the trust file, and granted this module?")
	case err != nil:
		return bad(err, "try by hand: rsync "+c.Upstream+"/")
	case head.Expired(d.now(), conf.ClockSkew.Duration):
		return doctor.Finding{Level: doctor.Warn, Detail: fmt.Sprintf("its head, serial %d of %s, has expired", head.Serial, head.At),
			Remedy: "the hub does not run, or one of the clocks is wrong"}
	}
	return doctor.Finding{Level: doctor.OK, Detail: fmt.Sprintf("serial %d, signed at %s", head.Serial, head.At)}
}
