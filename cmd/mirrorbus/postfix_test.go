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
// agent@lmtp.test to sockets: postfix COMMAND…. $SMTP is its host:port, $MAILDIR/hub.sock and $MAILDIR/agent.sock are the sockets, $MAILQ tells what waits.
func startPostfix(ts *testscript.TestScript, _ bool, args []string) {
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
	s := testenv.StartPostfix(t, testenv.PostfixOptions{
		Sockets: []string{"hub", "agent"}, PipeUser: "nobody", Pipe: map[string]string{"pipe.test": filepath.Join(dir, "mirrorbus") + " " + strings.Join(args, " ")},
	})
	ts.Setenv("SMTP", s.Addr())
	ts.Setenv("MAILDIR", s.Dir)
	ts.Setenv("MAILQ", "postqueue -c "+s.Dir+"/conf -p")
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
