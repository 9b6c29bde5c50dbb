package testenv

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Main runs the tests of a package that shares servers among its tests, and ends those:
//
//	func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }
func Main(m *testing.M) int {
	defer shared.end()
	return m.Run()
}

var shared suite

// SharedRabbitMQ is the node of the package's tests, which the first of them starts. Each test makes a vhost of its own in it.
func SharedRabbitMQ(t testing.TB) *RabbitMQ {
	t.Helper()
	rabbitProgram(t, "rabbitmq-server") // skips this test, not all
	shared.once.Do(func() { shared.rabbit = StartRabbitMQ(&shared, RabbitMQOptions{}) })
	if shared.rabbit == nil || !shared.rabbit.Running() {
		t.Fatal("the RabbitMQ of this package does not run")
	}
	return shared.rabbit
}

// SharedPostfix is the mail server of the package's tests, which the first of them starts. All of them give the same options.
func SharedPostfix(t testing.TB, o PostfixOptions) *Postfix {
	t.Helper()
	needPostfix(t) // skips this test, not all
	shared.mail.Do(func() { shared.postfix = StartPostfix(&shared, o) })
	if shared.postfix == nil || !shared.postfix.Running() {
		t.Fatal("the Postfix of this package does not run")
	}
	return shared.postfix
}

// SharedDovecot is that which serves the mailboxes of the shared Postfix.
func SharedDovecot(t testing.TB, p *Postfix) *Dovecot {
	t.Helper()
	Need(t, "dovecot") // skips this test, not all
	shared.imap.Do(func() { shared.dovecot = StartDovecot(&shared, p, Certificate{}) })
	if shared.dovecot == nil || !shared.dovecot.Running() {
		t.Fatal("the Dovecot of this package does not run")
	}
	return shared.dovecot
}

// suite stands for all tests of a package where a server asks for the test that it belongs to.
type suite struct {
	testing.TB // only what is below is called

	once    sync.Once
	rabbit  *RabbitMQ
	mail    sync.Once
	postfix *Postfix
	imap    sync.Once
	dovecot *Dovecot
	ends    []func()
}

func (*suite) Helper()            {}
func (s *suite) Cleanup(f func()) { s.ends = append(s.ends, f) }

// TempDir makes a folder that end removes.
func (s *suite) TempDir() string {
	dir, err := os.MkdirTemp("", "mirrorbus-test-")
	if err != nil {
		panic(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "testenv:", err)
		}
	})
	return dir
}

// Fatal ends the test that asked for the server, and so all, with a trace.
func (*suite) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// Fatalf is Fatal.
func (*suite) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// Errorf says what went wrong with a server that no single test has.
func (*suite) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "testenv: "+format+"\n", args...)
}

// Skip is not called: who asks for a shared server has looked for its program.
func (s *suite) Skip(args ...any) { s.Fatal(args...) }

func (s *suite) end() {
	for i := len(s.ends) - 1; i >= 0; i-- {
		s.ends[i]()
	}
}
