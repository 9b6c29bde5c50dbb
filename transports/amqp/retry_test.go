package amqp_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mirrorbus/mirrorbus/internal/config"
	"github.com/mirrorbus/mirrorbus/transports"
	"github.com/mirrorbus/mirrorbus/transports/amqp"
)

// All mirrors wait for the one master, so it comes back sooner than each of them; and either does what its operator wants.
func TestHowSoonItIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		role transports.Role
		set  time.Duration // 0: as it is by default
		want time.Duration
		says string // the fault of the configuration
	}{
		"master":             {role: transports.Master, want: 10 * time.Second},
		"mirror":             {role: transports.Mirror, want: time.Minute},
		"mirror, configured": {role: transports.Mirror, set: 3 * time.Second, want: 3 * time.Second},
		"master, too soon":   {role: transports.Master, set: time.Millisecond, says: "retry_max: is shorter than a second"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := amqp.Driver().Config(c.role)
			var b *amqp.Broker
			if c.role == transports.Master {
				b = &conf.(*amqp.MasterConfig).Broker
			} else {
				b = &conf.(*amqp.MirrorConfig).Broker
			}
			b.Servers, b.Password = []string{"amqps://bus.example.org"}, config.NewSecret("secret")
			if c.set > 0 {
				b.RetryMax.Duration = c.set
			}
			tr, err := transports.Registry{amqp.Driver()}.Open(c.role, "amqp", conf, transports.Env{Self: "alpha"})
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error is %v, want one that says %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := tr.RetryMax(); got != c.want {
				t.Errorf("tried again after %v at most, want %v", got, c.want)
			}
		})
	}
}
