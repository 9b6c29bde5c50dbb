package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// TestMain has more scripts run at a time than there are processors, since they wait most of the time.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil { // what -parallel says is above it
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"mirrorbus": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			status := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
			stop()
			os.Exit(status)
		},
	})
}

// The scripts are scenarios over the whole program and real servers. Besides testscript's own commands they have:
//
//	freeport NAME…         set $NAME to 127.0.0.1:PORT of a free port
//	rsyncd NAME=FOLDER…    run a real rsync daemon; $RSYNC is its rsync://host:port
//	until TEXT COMMAND…    repeat a command until its output holds TEXT, a minute at most; with ! until it does not
//	status N COMMAND…      run a command and check its exit status
//	bytes FILE TEXT        write TEXT with \0, \n and \xe9 in it
//	clock FILE DURATION    set a file's time so much from now
//	upstream stop|start    the rsync daemon; its configuration is $RSYNCD_CONF, which it reads anew for each connection
//	world SETTING…         a master and a mirror that are enrolled and not started
//	ready SOCKET…          wait until daemons answer
//	setting FILE LINE      change a configuration
//	tmpfs FOLDER OPTIONS   a file system of its own
//	sql FILE STATEMENT     change a database behind its owner's back
//	rabbitmq VHOST…        a RabbitMQ; rabbitmqctl TEXT COMMAND… runs a command on it whose output holds TEXT
//	broker freeze|thaw     the RabbitMQ hangs, and goes on
//	irc CHANNEL            an IRC server; comes NICK, says TARGET TEXT and hears TEXT are somebody in the channel
//	ircnet KIND CHANNEL    two of them that are one network; netsplit cuts their link, ! netsplit mends it
//	sshd COMMAND…          an sshd whose forced command is one of the program; $SSH is a client of it
//	postfix COMMAND…       a mail server that pipes mail for ANY@pipe.test into a command of the program
//	webserver FOLDER       nginx; $WEB is its host:port
//	nameserver ZONE        BIND; $DNS is its host:port, dns_secret the secret of the key mirrorbus, which may change the zone
//	aliases COMMAND…       one that does so by its table of aliases, for mirrorbus@alias.test
//	ftpsync                ends the script where that package is not; runmirrors ARCHIVE TYPE configures the program of that name
//	plain SETTING…         a mirror of the rsync daemon's module debian, whose master knows nothing of mirrorbus
//	restrict COMMAND…      the key of that sshd gets the line of authorized_keys that deploy/ssh has
//	impostor, inject, forge  a false hub, and what it says
//	systemd DIR            systemd for the units in a folder, which systemctl --user reaches
//	need PROGRAM…          ends the script where a program is not
//
// $HOOKS is the folder deploy/hooks.
func TestScripts(t *testing.T) {
	testenv.Need(t, "rsync")
	testenv.Need(t, "ssh-keygen")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"freeport": freePort, "rsyncd": rsyncd, "until": until, "status": status, "bytes": writeBytes, "clock": clock,
			"upstream": upstream, "world": world, "setting": setting, "tmpfs": tmpfs, "sql": runSQL, "ready": ready, "impostor": startImpostor, "inject": inject, "forge": forge,
			"rabbitmq": startRabbit, "rabbitmqctl": rabbitctl, "broker": setBroker, "sshd": startSSHD, "postfix": startPostfix, "aliases": startAliases,
			"webserver": startNginx, "nameserver": startNamed,
			"irc": startIRC, "ircnet": startIRCNetwork, "netsplit": split, "comes": comes, "says": says, "hears": hears,
			"restrict": restrictSSHD, "ftpsync": needFtpsync, "plain": plainMirror, "runmirrors": writeRunmirrors, "systemd": startSystemd,
			"need": func(ts *testscript.TestScript, _ bool, args []string) { testenv.Need(sceneOf(ts).t, args...) },
		},
		Condition: func(cond string) (bool, error) { // [command:NAME]: the program has it
			name, ok := strings.CutPrefix(cond, "command:")
			if !ok {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			c, _, err := (&app{}).root().Find([]string{name})
			return err == nil && c.Name() == name, nil
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("NO_COLOR", "1")
			e.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
			hooks, err := filepath.Abs("../../deploy/hooks")
			if err != nil {
				return err
			}
			e.Setenv("HOOKS", hooks)
			e.Values[sceneKey{}] = &scene{t: e.T().(testing.TB), stopImpostor: func() {}}
			// A UNIX socket's path must be short, the work folder's is not.
			short, err := os.MkdirTemp("", "mb")
			if err != nil {
				return err
			}
			e.Setenv("SOCKETS", short)
			e.Defer(func() {
				if err := os.RemoveAll(short); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
	})
}

// A scene is what the commands of one script keep.
type scene struct {
	t            testing.TB
	rsyncd       *testenv.Rsyncd
	rabbit       *testenv.RabbitMQ
	impostor     *impostor
	stopImpostor func()
	reader       *testenv.IRCUser
	channel      string // that the reader is in
	ircPort      int
	network      *testenv.IRCNetwork
}

// startSystemd starts systemd for the units of a folder: systemd DIR.
func startSystemd(ts *testscript.TestScript, _ bool, args []string) {
	s := testenv.StartSystemd(sceneOf(ts).t, ts.MkAbs(args[0]), filepath.Join(ts.Getenv("SOCKETS"), "run"))
	ts.Setenv("XDG_RUNTIME_DIR", s.Runtime)
}

type sceneKey struct{}

func sceneOf(ts *testscript.TestScript) *scene { return ts.Value(sceneKey{}).(*scene) }

func freePort(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Setenv(name, l.Addr().String())
		ts.Check(l.Close())
	}
}

// rsyncd runs a real rsync daemon with modules: rsyncd NAME=FOLDER[,setting = value…]…
func rsyncd(ts *testscript.TestScript, _ bool, args []string) {
	var modules []testenv.Module
	for _, a := range args {
		name, dir, ok := strings.Cut(a, "=")
		if !ok {
			ts.Fatalf("usage: rsyncd NAME=FOLDER[,setting = value…]…")
		}
		parts := strings.Split(dir, ",")
		modules = append(modules, testenv.Module{Name: name, Path: ts.MkAbs(parts[0]), Extra: parts[1:]})
	}
	s := sceneOf(ts)
	s.rsyncd = testenv.StartRsyncd(s.t, testenv.RsyncdOptions{}, modules...)
	ts.Setenv("RSYNC", fmt.Sprintf("rsync://127.0.0.1:%d", s.rsyncd.Port))
	ts.Setenv("RSYNCD_CONF", s.rsyncd.Config)
}

// patience bounds every wait. What is tried again by itself is tried again within half a minute where a script waits for it.
const patience = time.Minute

func waitFor(ts *testscript.TestScript, what string, f func() error) {
	deadline := time.Now().Add(patience)
	for pause := 50 * time.Millisecond; ; pause = min(pause*3/2, 250*time.Millisecond) { // a try may be a process, which takes time from what is waited for
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(pause)
	}
}

// until repeats a mirrorbus command until its output holds a text: until TEXT COMMAND…; ! until: until it does not.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || args[0] == "" { // which is in every output
		ts.Fatalf("usage: until TEXT COMMAND…")
	}
	waitFor(ts, strings.Join(args, " "), func() error {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if strings.Contains(out, args[0]) == neg {
			return errors.Join(fmt.Errorf("output %q", out), err)
		}
		return nil
	})
}

// status runs a command and checks its exit status.
func status(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		got = fmt.Sprint(exit.ExitCode())
	} else if err != nil {
		got = err.Error()
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s\n%s%s", got, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// writeBytes writes a file with Go escapes: bytes FILE 'text\x00'.
func writeBytes(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: bytes FILE TEXT")
	}
	text := strings.NewReplacer(`\0`, "\x00", `\n`, "\n", `\xe9`, "\xe9").Replace(args[1])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// clock moves a file's times: clock FILE SECONDS.
func clock(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[1])
	ts.Check(err)
	at := time.Now().Add(d)
	ts.Check(os.Chtimes(ts.MkAbs(args[0]), at, at))
}
