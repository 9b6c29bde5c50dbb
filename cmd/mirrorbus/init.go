package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/enrol"
)

func (a *app) initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "init",
		GroupID: "start",
		Short:   "make keys and configuration of a master or a mirror",
		Long: `Makes keys and configuration, and says what to run on the other side. Enrolment is three commands:

  master$ mirrorbus init master --address master.example.org --module fedora=/srv/fedora
  mirror$ mirrorbus init mirror --name mirror1 --module fedora=/srv/mirror/fedora --join WORD
  master$ mirrorbus mirror add mirror1 'ssh-ed25519 …'

Then "mirrorbus hub" runs on the master and "mirrorbus agent" on the mirror.`,
		Example: "  mirrorbus init master --module fedora=/srv/fedora",
	}
	c.AddCommand(a.initMasterCommand(), a.initMirrorCommand())
	return c
}

func (a *app) initMasterCommand() *cobra.Command {
	var o enrol.Master
	var modules []string
	var rsync string
	c := &cobra.Command{
		Use:   "master --module NAME=PATH… [--address HOST]",
		Short: "make keys and configuration of a master",
		Example: `  mirrorbus init master --module fedora=/srv/fedora
  mirrorbus init master --address master.example.org:2222 --module fedora=/srv/fedora --module epel=/srv/epel`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			host, err := splitHost(&o.Address)
			if err != nil {
				return err
			}
			if rsync == "" {
				rsync = "rsync://" + host + "/"
			}
			if o.Modules, err = parseModules(modules); err != nil {
				return err
			}
			for i := range o.Modules {
				o.Modules[i].Upstream = strings.TrimSuffix(rsync, "/") + "/" + o.Modules[i].Name
			}
			return a.initMaster(o)
		},
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	c.Flags().StringVar(&o.Dir, "dir", "/etc/mirrorbus", "`FOLDER` for keys and configuration")
	c.Flags().StringVar(&o.State, "state", "/var/lib/mirrorbus/master", "`FOLDER` for the journal")
	c.Flags().StringVar(&o.Socket, "socket", "/run/mirrorbus/master.sock", "control socket")
	c.Flags().StringVar(&o.Name, "name", "master", "principal that announces")
	c.Flags().StringVar(&o.Listen, "listen", "0.0.0.0:2222", "`ADDRESS:PORT` of the hub")
	c.Flags().StringVar(&o.Address, "address", hostname, "`HOST[:PORT]` at which mirrors reach the hub")
	c.Flags().StringVar(&rsync, "rsync", "", "rsync `URL` below which mirrors find the modules (default rsync://HOST/)")
	c.Flags().StringArrayVar(&modules, "module", nil, "`NAME=PATH` of a module; may be given again")
	return c
}

func (a *app) initMaster(o enrol.Master) error {
	if err := absolute(&o.Dir, &o.State, &o.Socket); err != nil {
		return err
	}
	path, join, err := enrol.InitMaster(o)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "wrote %s\n\nOn a mirror run, with a name of its own and its own path:\n\n  mirrorbus init mirror --name NAME", path)
	for _, m := range o.Modules {
		fmt.Fprintf(a.out, " --module %s=PATH", m.Name)
	}
	_, err = fmt.Fprintf(a.out, " --join %s\n\nThen run here:\n\n  mirrorbus hub\n", join)
	return err
}

func (a *app) initMirrorCommand() *cobra.Command {
	var o enrol.Mirror
	var modules []string
	var join string
	c := &cobra.Command{
		Use:     "mirror --name NAME --module NAME=PATH… --join WORD",
		Short:   "make keys and configuration of a mirror",
		Example: `  mirrorbus init mirror --name mirror1 --module fedora=/srv/mirror/fedora --join mirrorbus-join1.eyJodWIi…`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) (err error) {
			if o.Join, err = enrol.ParseJoin(join); err != nil {
				return err
			}
			if o.Modules, err = parseModules(modules); err != nil {
				return err
			}
			return a.initMirror(o)
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "/etc/mirrorbus", "`FOLDER` for keys and configuration")
	c.Flags().StringVar(&o.State, "state", "/var/lib/mirrorbus/mirror", "`FOLDER` for the inbox")
	c.Flags().StringVar(&o.Socket, "socket", "/run/mirrorbus/mirror.sock", "control socket")
	c.Flags().StringVar(&o.Name, "name", "", "`NAME` of this mirror, under which it reports")
	c.Flags().StringArrayVar(&modules, "module", nil, "`NAME=PATH` of a module to mirror; may be given again")
	c.Flags().StringVar(&join, "join", "", "`WORD` that the master's init printed")
	return c
}

func (a *app) initMirror(o enrol.Mirror) error {
	if err := absolute(&o.Dir, &o.State, &o.Socket); err != nil {
		return err
	}
	path, key, err := enrol.InitMirror(o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "wrote %s\n\nOn the master run:\n\n  mirrorbus mirror add %s '%s'\n\nThen run here:\n\n  mirrorbus agent\n", path, o.Name, key)
	return err
}

// absolute makes paths whole: a daemon is started elsewhere.
func absolute(paths ...*string) (err error) {
	for _, p := range paths {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

// splitHost adds the hub's port to an address without one, and returns the host.
func splitHost(address *string) (string, error) {
	if host, _, err := net.SplitHostPort(*address); err == nil {
		return host, nil
	}
	host := strings.Trim(*address, "[]")
	if host == "" {
		return "", usage(fmt.Errorf("address %q has no host", *address), "give --address HOST or HOST:PORT")
	}
	*address = net.JoinHostPort(host, "2222")
	return host, nil
}

func parseModules(list []string) ([]enrol.Module, error) {
	if len(list) == 0 {
		return nil, usage(fmt.Errorf("no module given"), "name at least one: --module NAME=PATH")
	}
	var modules []enrol.Module
	for _, s := range list {
		name, path, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, usage(fmt.Errorf("module %q: must be NAME=PATH", s), "for example --module fedora=/srv/fedora")
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		modules = append(modules, enrol.Module{Name: name, Path: abs})
	}
	return modules, nil
}
