package config_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/internal/config"
)

var update = flag.Bool("update", false, "write the .want files of testdata/broken anew")

// An agent is a configuration with one field of each sort.
type agent struct {
	Self      string          `toml:"self"`
	State     config.Path     `toml:"state"`
	Keys      config.Path     `toml:"allowed_signers"`
	Limit     config.Rate     `toml:"limit"`
	Ballast   config.Size     `toml:"ballast"`
	Dry       bool            `toml:"dry_run"`
	Module    []module        `toml:"module"`
	Transport config.Sections `toml:"transport"`
	times
}

type times struct {
	Interval config.Duration `toml:"interval"`
}

type module struct {
	Name    string                  `toml:"name"`
	Path    config.Path             `toml:"path"`
	Rules   []string                `toml:"filter"`
	Retries int                     `toml:"retries"`
	Budget  map[string]*config.Rate `toml:"budget"`
}

func (m *module) Validate() error {
	return errors.Join(config.Require("name", m.Name), config.Require("path", m.Path))
}

func (a *agent) Validate() error {
	if a.Self == "" {
		return config.Fault("self", "is required", "give this mirror a name of its own")
	}
	if a.Keys != "" {
		return config.NeedFile("allowed_signers", a.Keys)
	}
	return nil
}

type amqp struct {
	URL      string          `toml:"url"`
	Password config.Secret   `toml:"password_file"`
	Timeout  config.Duration `toml:"timeout"`
}

func (a *amqp) Validate() error {
	if a.URL == "bad" {
		return errors.New("is not usable")
	}
	return config.Require("url", a.URL)
}

type irc struct {
	Server string `toml:"server"`
	Nick   string `toml:"nick"`
}

func defaults() *agent {
	return &agent{
		State: "/var/lib/mirrorbus",
		times: times{Interval: config.Duration{Duration: time.Minute}},
		Transport: config.Sections{
			"amqp": &amqp{Timeout: config.Duration{Duration: 5 * time.Second}},
			"irc":  &irc{Nick: "mirror"},
			"mail": nil,
		},
	}
}

// TestBroken decodes each file of testdata/broken, named for its fault, and compares the whole report with the .want file beside it.
func TestBroken(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	files, err := filepath.Glob("testdata/broken/*.toml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d broken files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var faults config.Errors
			err = config.Decode(filepath.Base(file), data, defaults())
			if !errors.As(err, &faults) {
				t.Fatalf("error is %v", err)
			}
			checkWant(t, strings.TrimSuffix(file, ".toml")+".want", faults.Detail())
		})
	}
}

func checkWant(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

const good = `
self = "mirror1"
state = "state"
limit = "10MiB/s"
ballast = 4096
interval = "1d12h"

[[module]]
name = "fedora"
path = "/srv/fedora/"
filter = ["- *.iso"]
budget = { live = "1M", bulk = 5 }

[transport.amqp]
url = "amqps://hub"
password_file = "password"
`

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.toml")
	writeFile(t, file, good, 0o644)
	writeFile(t, filepath.Join(dir, "password"), "hunter2\n", 0o640)
	a := defaults()
	if err := config.File(file, a); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want any }{
		{a.State, config.Path(filepath.Join(dir, "state"))},
		{a.Limit, config.Rate(10 << 20)},
		{a.Ballast, config.Size(4096)},
		{a.Interval.Duration, 36 * time.Hour},
		{a.Module[0].Path, config.Path("/srv/fedora")},
		{*a.Module[0].Budget["live"], config.Rate(1e6)},
		{*a.Module[0].Budget["bulk"], config.Rate(5)},
		{fmt.Sprint(a.Transport.Names()), "[amqp]"},
		{a.Transport["amqp"].(*amqp).URL, "amqps://hub"},
		{a.Transport["amqp"].(*amqp).Timeout.Duration, 5 * time.Second},
		{a.Transport["amqp"].(*amqp).Password.Reveal(), "hunter2"},
	} {
		if c.got != c.want {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

func TestFileMissing(t *testing.T) {
	err := config.File(filepath.Join(t.TempDir(), "agent.toml"), defaults())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "agent.toml") {
		t.Errorf("error is %v", err)
	}
}

func TestDecodeWantsAStruct(t *testing.T) {
	for _, into := range []any{nil, agent{}, new(int), (*agent)(nil)} {
		if err := config.Decode("x", nil, into); err == nil {
			t.Errorf("%T was taken", into)
		}
	}
}

func TestOneFault(t *testing.T) {
	err := config.Decode("agent.toml", []byte("self = \"a\"\n[[module]]\nname = \"fedora\"\npath=\"/x\"\npaht = \"/srv\"\n"), defaults())
	var fault *config.Error
	if !errors.As(err, &fault) {
		t.Fatalf("error is %v", err)
	}
	if got, want := err.Error(), `agent.toml:5:1: unknown key "paht" in "module"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if fault.Line != 5 || fault.Column != 1 || fault.Key != "module.paht" || fault.Hint != `did you mean "path"?` {
		t.Errorf("got %#v", fault)
	}
}

func TestEffective(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "password"), "hunter2", 0o600)
	a := defaults()
	if err := config.Decode(filepath.Join(dir, "agent.toml"), []byte(good), a); err != nil {
		t.Fatal(err)
	}
	text, err := config.Effective(a)
	if err != nil {
		t.Fatal(err)
	}
	checkWant(t, "testdata/effective.toml", strings.ReplaceAll(string(text), dir, "/etc/mirrorbus"))
	again := defaults()
	text = bytes.ReplaceAll(text, []byte("(secret)"), []byte("password"))
	if err := config.Decode(filepath.Join(dir, "agent.toml"), text, again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, again, cmp.AllowUnexported(agent{}), cmp.Comparer(func(x, y config.Secret) bool { return x.Reveal() == y.Reveal() })); diff != "" {
		t.Errorf("decoded again (+) it differs:\n%s", diff)
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	type holder struct {
		Open  config.Secret
		quiet config.Secret
	}
	h := holder{config.NewSecret("hunter2"), config.NewSecret("hunter2")}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", h.Open, "holder", h, "pointer", &h.quiet)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "secret", h.Open, "holder", h, "pointer", &h.quiet)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&b, verb+verb+verb, h.Open, &h, h.quiet)
	}
	text, err := config.Effective(h)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(text)
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(b.String(), leak) {
			t.Errorf("the secret shows in %s", b.String())
		}
	}
	if h.Open.Reveal() != "hunter2" || !strings.Contains(b.String(), "(secret)") {
		t.Error("the secret is gone")
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"good", "a b\r\n", 0o400, ""},
		{"open", "x", 0o644, `names ` + dir + `/open, which everybody may read or write (mode 0644)`},
		{"empty", "\n", 0o600, `which is empty`},
		{"huge", strings.Repeat("x", 1<<17), 0o600, `which is larger than 65536 bytes`},
	} {
		writeFile(t, filepath.Join(dir, c.name), c.text, c.mode)
		var v struct {
			Token config.Secret `toml:"token_file"`
		}
		err := config.Decode(filepath.Join(dir, "x.toml"), []byte(fmt.Sprintf("token_file = %q", c.name)), &v)
		switch {
		case c.want == "" && (err != nil || v.Token.Reveal() != "a b"):
			t.Errorf("%s: %v, %q", c.name, err, v.Token.Reveal())
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		var fault *config.Error
		if c.name == "open" && (!errors.As(err, &fault) || fault.Hint != "chmod o-rwx "+dir+"/open") {
			t.Errorf("no remedy: %v", err)
		}
	}
}

// TestNamedPipe would wait for ever in a reader that opens whatever it is given.
func TestNamedPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"self = \"a\"\nallowed_signers = %q", "self = \"a\"\n[transport.amqp]\nurl = \"x\"\npassword_file = %q"} {
		err := config.Decode("x.toml", fmt.Appendf(nil, text, pipe), defaults())
		if err == nil || !strings.Contains(err.Error(), "file") {
			t.Errorf("error is %v", err)
		}
	}
}

func TestCredentialsDirectory(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "/run/credentials/agent")
	a := defaults()
	if err := config.Decode("x.toml", []byte("self = \"a\"\nstate = \"${CREDENTIALS_DIRECTORY}/key\""), a); err != nil {
		t.Fatal(err)
	}
	if a.State != "/run/credentials/agent/key" {
		t.Errorf("state is %s", a.State)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	files, err := filepath.Glob("testdata/broken/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := config.Decode("fuzz.toml", data, defaults())
		var faults config.Errors
		if err != nil && (!errors.As(err, &faults) || faults.Detail() == "") {
			t.Errorf("error without faults: %v", err)
		}
		for _, e := range faults {
			if e.Line > bytes.Count(data, []byte("\n"))+1 || e.Problem == "" {
				t.Errorf("fault %#v is not in the file", e)
			}
		}
	})
}
