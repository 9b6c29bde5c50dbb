package enrol_test

import (
	"crypto/sha256"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirrorbus/mirrorbus/event/signers"
	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/internal/enrol"
)

// joinWord is a join word of any text, with the checksum that a slip of the hand would not have.
func joinWord(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "mirrorbus-join1." + base64.RawURLEncoding.EncodeToString(append([]byte(text), sum[:4]...))
}

const someKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPjHc2YNEDYwp7VlGjSEhHyJK6XI8dyhNRRbHr3BsOT"

// FuzzJoin: a join word that is taken says the same when it is written again, and whatever it says, the trust file made from it trusts one
// key of one principal, and the configuration names what the word named.
func FuzzJoin(f *testing.F) {
	const word = `{"hub":"h:22","hub_key":"` + someKey + `","master":"master","key":"` + someKey + `","modules":[{"name":"m","upstream":"rsync://h/m"}]}`
	f.Add(word)
	f.Add(strings.Replace(word, `"h:22"`, `"\"h\n[x]:22"`, 1))
	f.Add(strings.Replace(word, `"key":"`, `"key":"other namespaces=\"report@mirrorbus\" `+someKey+`\n`, 1))
	f.Add(strings.Replace(word, `"key":"`, `"key":"# comment\n`, 1))
	f.Add(strings.Replace(word, `rsync://h/m`, `rsync://h/m\" # \\ \u0000`, 1))
	f.Fuzz(func(t *testing.T, text string) {
		j, err := enrol.ParseJoin(joinWord(text))
		if err != nil {
			return
		}
		again, err := enrol.ParseJoin(j.String())
		if diff := cmp.Diff(j, again); diff != "" || err != nil {
			t.Fatalf("%v %s", err, diff)
		}
		if len(j.Modules) == 0 {
			return
		}
		dir := filepath.Join(t.TempDir(), "etc")
		m := enrol.Mirror{Dir: dir, State: dir, Socket: dir, Name: "mirror1", Join: j, Modules: []enrol.Module{{Name: j.Modules[0].Name, Path: "/srv"}}}
		file, _, err := enrol.InitMirror(m)
		if err != nil {
			return
		}
		checkMirrorOf(t, file, dir, j)
	})
}

func checkMirrorOf(t *testing.T, file, dir string, j enrol.Join) {
	t.Helper()
	trust, problems, err := signers.Parse(strings.NewReader(read(t, filepath.Join(dir, "allowed_masters"))), "trust")
	if err != nil || len(problems) > 0 || len(trust.Entries) != 1 || trust.Entries[0].Principals != j.Master {
		t.Errorf("%+v becomes a trust file of %+v, %v, %v", j, trust.Entries, problems, err)
	}
	var conf struct {
		Name, Key, Trust, State, Socket string
		Grant                           []struct {
			Principal      string
			Modules, Kinds []string
		}
		Module    []struct{ Name, Path, Upstream string }
		Transport struct {
			Hub struct {
				Address string
				HostKey string `toml:"host_key"`
			}
		}
	}
	if err := config.Decode(file, []byte(read(t, file)), &conf); err != nil {
		t.Fatalf("%+v becomes a configuration that cannot be read: %v\n%s", j, err, read(t, file))
	}
	if len(conf.Grant) != 1 || conf.Grant[0].Principal != j.Master || len(conf.Module) != 1 || conf.Transport.Hub.Address != j.Hub || conf.Transport.Hub.HostKey != j.HubKey {
		t.Errorf("%+v becomes %+v", j, conf)
	}
}
