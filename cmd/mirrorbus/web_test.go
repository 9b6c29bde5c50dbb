package main

import (
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// startNginx serves a folder: webserver FOLDER. $WEB is its host:port.
func startNginx(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: webserver FOLDER")
	}
	ts.Setenv("WEB", testenv.StartNginx(sceneOf(ts).t, ts.MkAbs(args[0]), "").Addr())
}

// startNamed starts a name server: nameserver ZONE. $DNS is its host:port; the secret of its key "mirrorbus" is in the file dns_secret.
func startNamed(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: nameserver ZONE")
	}
	n := testenv.StartNamed(sceneOf(ts).t, args[0])
	ts.Setenv("DNS", n.Addr())
	ts.Check(os.WriteFile(ts.MkAbs("dns_secret"), []byte(n.Secret+"\n"), 0o600))
}
