package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

const composeFile = "../docker-compose.yml"

// project is docker-compose.yml as docker reads it.
func project(t *testing.T) *types.Project {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{composeFile})
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestComposeSecrets: besides setup, which makes them, nobody is given secrets of another; and every file that is mounted is in the repository.
func TestComposeSecrets(t *testing.T) {
	own := map[string][]string{
		"rabbitmq": {"broker", "broker-data"}, "rsyncd": {"tree"}, "hub": {"master", "tree"},
		"mirror1": {"mirror1"}, "mirror2": {"mirror2"}, "mirror3": {"mirror3"}, "setup": {"broker", "master", "mirror1", "mirror2", "mirror3", "tree"},
	}
	p := project(t)
	if got, want := p.ServiceNames(), slices.Sorted(maps.Keys(own)); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("services are %q, want %q", got, want)
	}
	for name, s := range p.Services {
		var volumes []string
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				volumes = append(volumes, v.Source)
			} else if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("%s: mount of %s: read only %t, %v", name, v.Source, v.ReadOnly, err)
			}
		}
		if slices.Sort(volumes); !slices.Equal(volumes, own[name]) {
			t.Errorf("%s has the volumes %q, want %q", name, volumes, own[name])
		}
		if s.Build != nil {
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestCompose starts what docker-compose.yml starts, without containers: the same set-up, the same commands, their folders below another root. Then
// it types what the head of that file tells to type.
func TestCompose(t *testing.T) {
	rsync := testenv.Need(t, "rsync")
	p := project(t)
	n := native{t: t, root: t.TempDir(), env: os.Environ()}
	bin := filepath.Join(t.TempDir(), "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/mirrorbus", "../cmd/mirrorbus").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.env = append(n.env, "PATH="+bin+":"+os.Getenv("PATH"))
	for _, v := range p.Services["setup"].Volumes {
		if err := os.Mkdir(n.root+v.Target, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	broker := testenv.StartRabbitMQ(t, testenv.RabbitMQOptions{})
	hub := fmt.Sprint("127.0.0.1:", testenv.FreePort(t))
	conf := strings.ReplaceAll(read(t, "container/rsyncd.conf"), "port = 8730", "")
	conf = strings.NewReplacer("path = /tree", "path = "+n.root+"/tree", "/tmp/", t.TempDir()+"/").Replace(conf)
	url := startRsyncd(t, rsync, conf)
	setup := exec.Command("container/setup")
	setup.Env = append(n.env, "ROOT="+n.root, "BROKER="+broker.URL(), "RSYNC="+strings.TrimSuffix(url, "/"), "HUB="+hub, "LISTEN="+hub)
	for range 2 { // again it does nothing
		if out, err := setup.CombinedOutput(); err != nil {
			t.Fatalf("setup: %v: %s", err, out)
		}
		setup = &exec.Cmd{Path: setup.Path, Args: setup.Args, Env: setup.Env}
	}
	broker.Ctl("import_definitions", n.root+"/broker/definitions.json")
	for _, name := range []string{"hub", "mirror1", "mirror2", "mirror3"} {
		n.start(p.Services[name])
	}
	said := ""
	for _, m := range regexp.MustCompile(`(?m)^#   docker compose exec (\S+) (.*)$`).FindAllStringSubmatch(read(t, composeFile), -1) {
		said = n.typed(p.Services[m[1]], m[2])
	}
	if want := read(t, n.root+"/tree/README"); said != want || want == "" {
		t.Errorf("the last command says %q, want what is on the master: %q", said, want)
	}
	testenv.WaitFor(t, time.Minute, func() error {
		status := n.typed(p.Services["hub"], "mirrorbus status")
		for _, want := range []string{"mirror1  current", "mirror2  current", "mirror3  current", "transport amqp", "transport hub"} {
			if !strings.Contains(status, want) {
				return fmt.Errorf("status says\n%s\nwant %q", status, want)
			}
		}
		return nil
	})
}

// native runs what is meant for containers.
type native struct {
	t    *testing.T
	root string // stands for /
	env  []string
}

// of is the environment of a service.
func (n *native) of(s types.ServiceConfig) []string {
	return append(slices.Clone(n.env), "MIRRORBUS_CONFIG="+n.root+*s.Environment["MIRRORBUS_CONFIG"])
}

// start runs the command of a service until the test ends.
func (n *native) start(s types.ServiceConfig) {
	n.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...)
	cmd.Env = n.of(s)
	cmd.Path = n.program(s.Command[0])
	cmd.Err = nil
	log, err := os.Create(filepath.Join(n.root, s.Name+".log"))
	if err != nil {
		n.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		stop()
		if err := cmd.Wait(); !errors.Is(err, context.Canceled) { // it ended because it was told to, and well
			n.t.Errorf("%s: %v\n%s", s.Name, err, read(n.t, log.Name()))
		}
		if err := log.Close(); err != nil {
			n.t.Error(err)
		}
	})
}

// program is where the PATH of the services has a program.
func (n *native) program(name string) string {
	n.t.Helper()
	for _, v := range slices.Backward(n.env) {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			for _, dir := range filepath.SplitList(path) {
				if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
					return found
				}
			}
		}
	}
	n.t.Fatalf("no program %s", name)
	return ""
}

// typed runs a line as it is typed for a service, as soon as it works: the daemons need a moment.
func (n *native) typed(s types.ServiceConfig, line string) string {
	n.t.Helper()
	line = regexp.MustCompile(`/(tree|mirror\d)/`).ReplaceAllString(line, n.root+"/$1/")
	var out []byte
	testenv.WaitFor(n.t, time.Minute, func() (err error) {
		cmd := exec.Command("/bin/sh", "-c", line)
		cmd.Env = n.of(s)
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return err
	})
	return string(out)
}
