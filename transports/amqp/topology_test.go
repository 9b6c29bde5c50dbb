package amqp_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

func topologyPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("TOPOLOGY.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section are the rows of the tables below a heading, as cells; `\|` is no end of a cell.
func section(t *testing.T, heading string) (rows [][]string) {
	t.Helper()
	_, rest, found := strings.Cut(topologyPage(t), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		var row []string
		for cell := range strings.SplitSeq(strings.Trim(strings.ReplaceAll(strings.TrimSpace(line), `\|`, "\x00"), "|"), "|") {
			row = append(row, strings.TrimSpace(strings.ReplaceAll(cell, "\x00", "|")))
		}
		rows = append(rows, row)
	}
	return rows[1:]
}

var (
	argument = regexp.MustCompile("`([a-z-]+): ([^`]+)`")
	code     = regexp.MustCompile("`([^`]*)`")
)

// described is what the page says of an object.
type described struct {
	kind string
	args map[string]string
}

// TestTopologyIsDescribed: TOPOLOGY.md has each object with exactly its arguments, each binding and each permission.
func TestTopologyIsDescribed(t *testing.T) {
	topology, users := smallSite()
	users.Mirrors = users.Mirrors[:3]
	text, err := amqp.Definitions("mirrorbus", topology, users)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Exchanges, Queues []struct {
			Name, Type string
			Arguments  map[string]any
		}
		Bindings []struct {
			Source, Destination string
			Key                 string `json:"routing_key"`
		}
		Permissions []struct{ User, Configure, Write, Read string }
		Topics      []struct{ User, Exchange, Write, Read string } `json:"topic_permissions"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	have, want := map[string]described{}, map[string]described{}
	for _, row := range append(section(t, "Exchanges"), section(t, "Streams and queues")...) {
		o := described{args: map[string]string{}}
		what := "queue "
		if len(row) == 3 {
			o.kind, what = row[1], "exchange "
		}
		for _, m := range argument.FindAllStringSubmatch(row[len(row)-1], -1) {
			o.args[m[1]] = m[2]
		}
		have[what+strings.Trim(row[0], "`")] = o
	}
	for what, objects := range map[string][]struct {
		Name, Type string
		Arguments  map[string]any
	}{"exchange ": d.Exchanges, "queue ": d.Queues} {
		for _, o := range objects {
			args := map[string]string{}
			for k, v := range o.Arguments {
				if n, ok := v.(float64); ok {
					v = int64(n)
				}
				args[k] = fmt.Sprint(v)
			}
			want[what+o.Name] = described{o.Type, args}
		}
	}
	if a, b := fmt.Sprint(have), fmt.Sprint(want); a != b {
		t.Errorf("the page has\n%s\nand there is\n%s", a, b)
	}

	var bindings, bound []string
	for _, row := range section(t, "Bindings") {
		name, _, _ := strings.Cut(row[2], " ")
		bindings = append(bindings, strings.ReplaceAll(row[0]+" "+row[1]+" "+name, "`", ""))
	}
	for _, b := range d.Bindings {
		bound = append(bound, b.Source+" "+b.Key+" "+b.Destination)
	}
	slices.Sort(bindings)
	if slices.Sort(bound); !slices.Equal(bindings, bound) {
		t.Errorf("the page has the bindings %q, there are %q", bindings, bound)
	}

	rules := map[string]string{}
	for _, r := range d.Topics {
		rules[r.User] += fmt.Sprintf("; `%s`: `%s`", r.Exchange, r.Write)
		if r.Read != "^$" {
			t.Errorf("topics, read, is %s", r.Read)
		}
	}
	rows := map[string][]string{}
	for _, row := range section(t, "Users and permissions") {
		rows[code.FindStringSubmatch(row[0])[1]] = row[1:]
	}
	for _, p := range d.Permissions {
		topics := strings.TrimPrefix(rules[p.User], "; ")
		if rules[p.User] == rules["alpha"] && p.User != "alpha" {
			topics = "as `alpha`"
		}
		if want := []string{"`" + p.Write + "`", "`" + p.Read + "`", topics}; p.Configure != "^$" || !slices.Equal(rows[p.User], want) {
			t.Errorf("%s: the page has %q, there is %q", p.User, rows[p.User], want)
		}
	}
	if len(rows) != len(d.Permissions) {
		t.Errorf("%d users on the page", len(rows))
	}
}

// codeOf is the one block of code in a language.
func codeOf(t *testing.T, language string) string {
	t.Helper()
	m := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(topologyPage(t), -1)
	if len(m) != 1 {
		t.Fatalf("%d blocks of %s", len(m), language)
	}
	return m[0][1]
}

// python is an interpreter that has the module pika: Debian's own, if another one stands before it on PATH.
func python(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(program, "-c", "import pika").Run() == nil {
			return program
		}
	}
	testenv.Missing(t, "python3-pika is not installed")
	return ""
}

// TestConsumerInPython runs the text of TOPOLOGY.md, with a user that was made by its commands: it hears what was announced before, and what is
// announced while it listens.
func TestConsumerInPython(t *testing.T) {
	t.Parallel()
	program := python(t)
	s := newSite(t, amqp.DefaultTopology())
	for line := range strings.Lines(codeOf(t, "sh")) {
		var args []string
		for _, m := range regexp.MustCompile(`'([^']*)'|[^' \n]+`).FindAllStringSubmatch(strings.Replace(line, "mirrorbus", s.vhost, 1), -1) {
			args = append(args, strings.Trim(m[0], "'"))
		}
		s.node.Ctl(args[1:]...)
	}
	master := s.member(&member{role: transports.Master, name: "master"}).run()
	master.await(0)
	say := func(id string) {
		t.Helper()
		m := transports.Message{Topic: transports.Topic{Kind: transports.Announce, Module: "fedora"}, ID: id, Body: []byte("mirrorbus1 head " + id + "\n\x00\xff")}
		if err := master.transport.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	say("before")
	cmd := exec.Command(program, "-c", codeOf(t, "python"))
	cmd.Env = append(os.Environ(), "BUS="+strings.Replace(s.node.URL(), "amqp://", "amqp://listener:SECRET@", 1)+"/"+s.vhost)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	overdue := time.AfterFunc(patience, func() { cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	defer overdue.Stop()
	defer cmd.Wait()         //nolint:errcheck // it was killed
	defer cmd.Process.Kill() //nolint:errcheck // it may have ended
	lines := bufio.NewScanner(out)
	for i, id := range []string{"before", "meanwhile"} {
		if !lines.Scan() {
			cmd.Wait() //nolint:errcheck // it was killed
			t.Fatalf("it ends: %v: %s", lines.Err(), &said)
		}
		if want := fmt.Sprintf("%d org.mirrorbus.announce.v1 fedora mirrorbus1 head %s", i, id); lines.Text() != want {
			t.Errorf("it prints %q, want %q", lines.Text(), want)
		}
		if i == 0 {
			say("meanwhile")
		}
	}
}
