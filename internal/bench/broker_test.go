package bench_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// A broker is a RabbitMQ node with a vhost for each side, so that neither hears what is meant for the other.
type broker struct {
	b      *bench
	node   *testenv.RabbitMQ
	bareIn string // the vhost of the bare client
}

// The vhosts, which hold the same topology.
const (
	vhostOurs = "ours"
	vhostBare = "bare"
)

// hasBroker says that a line is left out where there is no RabbitMQ.
func (b *bench) hasBroker() bool {
	has := testenv.HasRabbitMQ()
	if !has {
		say("  left out: RabbitMQ is not installed")
	}
	return has
}

// broker starts a node. It may have as many connections as this process may, which are enough for so many open files for each mirror.
func (b *bench) broker(each int) (*broker, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil { // the node has what was set here, not what this process began with
		return nil, err
	}
	if most := uint64(each * b.mirrors); files.Cur < most {
		return nil, fmt.Errorf("a process may open %d files here, this line needs %d: raise the limit (ulimit -Hn), or set MIRRORS to fewer than %d", files.Cur, most, b.mirrors)
	}
	return &broker{b, testenv.StartRabbitMQ(b.T, testenv.RabbitMQOptions{}), vhostBare}, nil
}

// vhost makes a vhost with a topology.
func (r *broker) vhost(name string, topology amqp.Topology) error {
	r.node.VHost(name)
	if err := amqp.Init(r.b.ctx, r.login(name), topology); err != nil {
		return err
	}
	r.node.Sync()
	return nil
}

// vhosts makes that of either side.
func (r *broker) vhosts(topology amqp.Topology) error {
	return errors.Join(r.vhost(vhostOurs, topology), r.vhost(vhostBare, topology))
}

func (r *broker) login(vhost string) amqp.Broker {
	b := amqp.DefaultMasterConfig().Broker
	b.Servers, b.VHost, b.User, b.Password = []string{r.node.URL()}, vhost, r.node.User, config.NewSecret(r.node.Password)
	return b
}

// open opens a transport of mirrorbus.
func (r *broker) open(role transports.Role, name string) (*transports.CheckedTransport, error) {
	var conf any = &amqp.MasterConfig{Broker: r.login(vhostOurs)}
	if role == transports.Mirror {
		mirror := amqp.DefaultMirrorConfig()
		mirror.Broker = r.login(vhostOurs)
		conf = mirror
	}
	return transports.Registry{amqp.Driver()}.Open(role, "amqp", conf, transports.Env{Self: name})
}

// memory is what the node holds.
func (r *broker) memory() (float64, error) { return status(r.node.PID(), "VmRSS") }

// disk is the room that the node's data takes.
func (r *broker) disk() (sum float64, err error) {
	err = filepath.WalkDir(filepath.Join(r.node.Dir, "mnesia"), func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was deleted meanwhile
		}
		if err != nil {
			return err
		}
		if info, err := e.Info(); err == nil {
			sum += float64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return nil
	})
	return sum, err
}
