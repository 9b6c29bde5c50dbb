package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// startPostfix starts a mail server that pipes mail for ANY@pipe.test into a command of the program, run by nobody, and hands that for hub@lmtp.test and
// agent@lmtp.test to sockets: postfix COMMAND…. $SMTP is its host:port, $MAILDIR/hub.sock and $MAILDIR/agent.sock are the sockets, $MAILQ tells what waits,
// and $MAILLOG is its log.
func startPostfix(ts *testscript.TestScript, _ bool, args []string) {
	command := mailCommand(ts, args)
	startMail(ts, testenv.PostfixOptions{PipeUser: "nobody", Pipe: map[string]string{"pipe.test": command}})
}

// startAliases starts one that pipes mail for mirrorbus@alias.test by its table of aliases: aliases COMMAND….
func startAliases(ts *testscript.TestScript, _ bool, args []string) {
	startMail(ts, testenv.PostfixOptions{Aliases: map[string]string{"mirrorbus": mailCommand(ts, args)}})
}

func startMail(ts *testscript.TestScript, o testenv.PostfixOptions) {
	o.Sockets = []string{"hub", "agent"}
	s := testenv.StartPostfix(sceneOf(ts).t, o)
	ts.Setenv("SMTP", s.Addr())
	ts.Setenv("MAILDIR", s.Dir)
	ts.Setenv("MAILQ", "postqueue -c "+s.Dir+"/conf -p")
	ts.Setenv("MAILLOG", s.Dir+"/log")
}

// mailCommand is a command of the program that anybody may run.
func mailCommand(ts *testscript.TestScript, args []string) string {
	program, err := lookUp("mirrorbus", ts.Getenv("PATH"))
	ts.Check(err)
	dir, err := os.MkdirTemp("", "mirrorbus-bin-") // nobody may not look into the folder of the test
	ts.Check(err)
	t := sceneOf(ts).t
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ts.Check(os.Chmod(dir, 0o755))
	ts.Check(copyProgram(program, filepath.Join(dir, "mirrorbus")))
	return filepath.Join(dir, "mirrorbus") + " " + strings.Join(args, " ")
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
