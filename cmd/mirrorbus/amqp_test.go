package main

import (
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
)

// startRabbit starts a RabbitMQ with empty vhosts: rabbitmq VHOST…. $AMQP is its address, $AMQP_USER one who may do everything, and the file
// admin.password has the password.
func startRabbit(ts *testscript.TestScript, _ bool, args []string) {
	s := sceneOf(ts)
	s.rabbit = testenv.StartRabbitMQ(s.t, testenv.RabbitMQOptions{})
	for _, name := range args {
		s.rabbit.VHost(name)
	}
	ts.Setenv("AMQP", s.rabbit.URL())
	ts.Setenv("AMQP_USER", s.rabbit.User)
	ts.Check(os.WriteFile(ts.MkAbs("admin.password"), []byte(s.rabbit.Password+"\n"), 0o600))
}

// rabbitctl runs rabbitmqctl and checks that its output has a text: rabbitmqctl TEXT COMMAND…. It reads the file of the script that is named as <NAME.
func rabbitctl(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || sceneOf(ts).rabbit == nil {
		ts.Fatalf("usage: rabbitmq VHOST…, then rabbitmqctl TEXT COMMAND…")
	}
	input := ""
	if name, ok := strings.CutPrefix(args[len(args)-1], "<"); ok {
		input, args = ts.ReadFile(name), args[:len(args)-1]
	}
	if out := sceneOf(ts).rabbit.CtlReads(input, args[1:]...); strings.Contains(out, args[0]) == neg {
		ts.Fatalf("rabbitmqctl %s: %s", strings.Join(args[1:], " "), out)
	}
}
