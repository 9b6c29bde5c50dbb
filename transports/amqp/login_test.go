package amqp_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mirrorbus/mirrorbus/internal/testenv"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

func TestCredentialsRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t, amqp.DefaultTopology())
	user := s.vhost + "-mirror"
	for _, c := range []struct {
		name         string
		revoke, mend func()
		says         string
	}{
		{"user deleted", func() { s.node.API(http.MethodDelete, "/api/users/"+user, nil, nil) }, func() { s.user(user, "secret-1", ".*", ".*") }, "it refuses the user or the password"},
		{"password changed", func() {
			s.user(user, "another", ".*", ".*")
			s.cutAll("password changed")
		}, func() { s.user(user, "secret-1", ".*", ".*") }, "it refuses the user or the password"},
		{"no permission for the vhost", func() {
			s.delete("permissions", user)
			s.cutAll("permission taken")
		}, func() { s.user(user, "secret-1", ".*", ".*") }, "there is no such vhost, or this user may not use it"},
		{"no permission to read", func() {
			s.user(user, "secret-1", ".*", "^$")
			s.cutAll("permission taken")
		}, func() { s.user(user, "secret-1", ".*", ".*") }, "this user may not do that"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.t = t
			s.user(user, "secret-1", ".*", ".*")
			m := s.member(&member{role: transports.Mirror, name: "mirror", tune: login(user, "secret-1")}).run()
			m.await(0)
			c.revoke()
			testenv.WaitFor(t, patience, func() error {
				if last := m.last(); !last.Permanent || !strings.Contains(fmt.Sprint(last.Err), c.says) {
					return fmt.Errorf("state %+v, want a permanent error that says %q", last, c.says)
				}
				return nil
			})
			if said, _ := m.said("secret-1"); said {
				t.Errorf("the password is in the errors:\n\t%s", m.errors())
			}
			c.mend()
			m.await(1)
			m.stop()
		})
	}
	s.t = t
	s.node.API(http.MethodDelete, "/api/users/"+user, nil, nil)
}
