package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/fault"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

func (a *app) amqpCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "amqp",
		GroupID: "start",
		Short:   "make what a RabbitMQ must hold to be the bus",
		Long: `Makes what a vhost of a RabbitMQ must hold to be the bus: exchanges, streams, queues and bindings, and the users with their permissions.

Who operates the broker runs one of these once; masters and mirrors declare nothing. "init" makes the objects over AMQP. "definitions" prints the
objects and the users for rabbitmqctl import_definitions, or for load_definitions in rabbitmq.conf. Either may be run again, for example with one
mirror more.`,
		Example: "  mirrorbus amqp definitions --master master --mirror alpha --mirror beta --passwords /etc/mirrorbus/amqp > definitions.json",
	}
	c.AddCommand(a.amqpInitCommand(), a.amqpDefinitionsCommand())
	return c
}

func (a *app) amqpInitCommand() *cobra.Command {
	conf := amqp.DefaultMasterConfig()
	var topology topologyFlags
	var server, password, ca string
	c := &cobra.Command{
		Use:   "init --server URL --user NAME --password-file FILE",
		Short: "make exchanges, streams, queues and bindings in a vhost",
		Long: `Makes the exchanges, streams, queues and bindings that are missing in a vhost, which must be there (rabbitmqctl add_vhost mirrorbus). The user must
have the right to configure, write and read in it. What is there already and is otherwise than it should be is an error, and stays as it is.`,
		Example: `  mirrorbus amqp init --server amqps://bus.example.org --user admin --password-file admin.password
  mirrorbus amqp init --server amqps://bus1.example.org --user admin --password-file admin.password --replicas 3 --embargoed tier1
  mirrorbus amqp init --server amqp://localhost --user admin --password-file admin.password --inbox alpha=quorum --inbox beta=classic`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			conf.Servers, conf.CA = []string{server}, config.Path(ca)
			if server == "" || conf.User == "" || password == "" {
				return usage(errors.New("--server, --user and --password-file are required"), "see "+c.CommandPath()+" --help")
			}
			if conf.Password, err = config.ReadSecret(password); err != nil {
				return asFlagFault("password_file", err)
			}
			t, err := topology.parse()
			if err != nil {
				return err
			}
			return a.amqpInit(c.Context(), conf.Broker, t)
		},
	}
	c.Flags().StringVar(&server, "server", "", "`URL` of a node: amqps://HOST[:PORT], or amqp:// without TLS")
	c.Flags().StringVar(&conf.VHost, "vhost", conf.VHost, "vhost")
	c.Flags().StringVar(&conf.User, "user", "", "`NAME` of a user who may configure there")
	c.Flags().StringVar(&password, "password-file", "", "`FILE` with the user's password, which others may not read")
	c.Flags().StringVar(&ca, "ca-file", "", "PEM `FILE` with the certificates of those who may vouch for the broker (default: the system's)")
	c.Flags().BoolVar(&conf.Plaintext, "plaintext", false, "allow amqp:// to another host: everybody on the way reads the password")
	topology.add(c)
	return c
}

func (a *app) amqpInit(ctx context.Context, b amqp.Broker, t amqp.Topology) error {
	err := amqp.Init(ctx, b, t)
	var wrong *config.Error
	switch {
	case errors.As(err, &wrong):
		return asFlagFault("", err)
	case transports.IsPermanent(err):
		return fault.With(err, fault.Failed, "")
	case err != nil:
		return fault.With(err, fault.Unavailable, "see that the broker runs and can be reached from here, then try again: what is there already stays")
	}
	_, err = fmt.Fprintf(a.out, "the topology stands in vhost %s of %s\n", b.VHost, b.Servers[0])
	return err
}

func (a *app) amqpDefinitionsCommand() *cobra.Command {
	var topology topologyFlags
	var users amqp.Users
	vhost, passwords := amqp.DefaultMasterConfig().VHost, ""
	c := &cobra.Command{
		Use:   "definitions --master NAME --mirror NAME…",
		Short: "print topology, users and permissions for RabbitMQ to import",
		Long: `Prints the vhost, its exchanges, streams, queues and bindings, one user for the master and one for each mirror, and what each may do, as JSON for

  rabbitmqctl import_definitions < definitions.json

With --passwords each user's password is in the file of its name in FOLDER. It is read if it is there and made otherwise; bring it to its host as the
password_file of its configuration. The JSON holds salted hashes only. Without --passwords all users log in with certificates.

Importing changes users and permissions that are there already, and no queue or exchange. It deletes nothing: let a mirror go with
rabbitmqctl delete_user NAME.`,
		Example: `  mirrorbus amqp definitions --master master --mirror alpha --mirror beta > definitions.json
  mirrorbus amqp definitions --master master --mirror alpha --passwords /etc/mirrorbus/amqp | ssh bus rabbitmqctl import_definitions`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := topology.parse()
			if err != nil {
				return err
			}
			return a.amqpDefinitions(vhost, t, users, passwords)
		},
	}
	c.Flags().StringVar(&vhost, "vhost", vhost, "vhost")
	c.Flags().StringVar(&users.Master, "master", "", "`NAME` of the master, as in its configuration")
	c.Flags().StringArrayVar(&users.Mirrors, "mirror", nil, "`NAME` of a mirror, as in its configuration; may be given again")
	c.Flags().StringVar(&passwords, "passwords", "", "`FOLDER` with a file for each user")
	topology.add(c)
	return c
}

func (a *app) amqpDefinitions(vhost string, t amqp.Topology, u amqp.Users, folder string) error {
	if _, err := amqp.Definitions(vhost, t, u); err != nil { // before anything is written
		return usage(err, "see mirrorbus amqp definitions --help")
	}
	if folder != "" {
		u.Passwords = map[string]string{}
		for _, name := range append([]string{u.Master}, u.Mirrors...) {
			password, err := a.password(filepath.Join(folder, name))
			if err != nil {
				return err
			}
			u.Passwords[name] = password
		}
	}
	text, err := amqp.Definitions(vhost, t, u)
	if err != nil {
		return err
	}
	_, err = a.out.Write(text)
	return err
}

// password is what the file holds; a file that is not there is made.
func (a *app) password(file string) (string, error) {
	secret, err := config.ReadSecret(file)
	if _, statErr := os.Lstat(file); !errors.Is(statErr, fs.ErrNotExist) {
		return secret.Reveal(), asFlagFault("passwords", err)
	}
	made := rand.Text()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fault.With(err, fault.Failed, "")
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintln(f, made)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(a.err, "made %s\n", file)
	return made, err
}

// topologyFlags are the options that say what the topology is.
type topologyFlags struct {
	topology amqp.Topology
	inboxes  []string
}

func (f *topologyFlags) add(c *cobra.Command) {
	f.topology = amqp.DefaultTopology()
	c.Flags().IntVar(&f.topology.Replicas, "replicas", f.topology.Replicas, "`NUMBER` of nodes that keep each stream and queue: 3 in a cluster")
	c.Flags().StringVar(&f.topology.MaxAge, "max-age", f.topology.MaxAge, "how long announcements are kept: a number and one of Y M D h m s")
	c.Flags().StringArrayVar(&f.inboxes, "inbox", nil, "`NAME=quorum|classic`: a mirror with a queue of its own; may be given again")
	c.Flags().StringArrayVar(&f.topology.Embargoed, "embargoed", nil, "`NAME` of a mirror that may hear of embargoed modules; may be given again")
}

func (f *topologyFlags) parse() (amqp.Topology, error) {
	t := f.topology
	t.Inboxes = map[string]string{}
	for _, s := range f.inboxes {
		name, kind, ok := strings.Cut(s, "=")
		if !ok {
			return t, usage(fmt.Errorf("--inbox %.100q: must be NAME=quorum or NAME=classic", s), "for example --inbox alpha=quorum")
		}
		t.Inboxes[name] = kind
	}
	return t, usage(t.Check(), "see --help")
}

// asFlagFault makes wrong usage of a fault in a setting that came from the command line. key is that of a fault without one.
func asFlagFault(key string, err error) error {
	var wrong *config.Error
	if !errors.As(err, &wrong) {
		return err
	}
	if wrong.Key != "" {
		key = wrong.Key
	}
	if key == "servers" {
		key = "server"
	}
	flag := "--" + strings.ReplaceAll(key, "_", "-")
	return usage(fmt.Errorf("%s %s", flag, wrong.Problem), strings.ReplaceAll(wrong.Hint, "plaintext = true", "--plaintext"))
}
