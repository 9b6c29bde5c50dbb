package main

import "github.com/rogpeppe/go-internal/testscript"

// setBroker lets the broker hang and go on: broker freeze|thaw.
func setBroker(ts *testscript.TestScript, _ bool, args []string) {
	n := sceneOf(ts).rabbit
	if n == nil || len(args) != 1 {
		ts.Fatalf("usage: rabbitmq VHOST…, then broker freeze|thaw")
	}
	switch args[0] {
	case "freeze":
		n.Freeze()
	case "thaw":
		n.Thaw()
	default:
		ts.Fatalf("broker %s: freeze or thaw", args[0])
	}
}
