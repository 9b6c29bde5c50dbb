package metrics

import (
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	var p Page
	p.Gauge("mirrorbus_up", "Whether it runs.", 1)
	p.Counter("mirrorbus_lines_total", "Lines.", 12345678901, "transport", "irc", "event", "said")
	p.Gauge("mirrorbus_lag_seconds", "How far.", 0.25, "mirror", "a\"b\\c\nd\xff")
	p.Counter("mirrorbus_lines_total", "Other words.", 0, "transport", "mail", "event", "said")
	const want = `# HELP mirrorbus_up Whether it runs.
# TYPE mirrorbus_up gauge
mirrorbus_up 1
# HELP mirrorbus_lines_total Lines.
# TYPE mirrorbus_lines_total counter
mirrorbus_lines_total{transport="irc",event="said"} 12345678901
mirrorbus_lines_total{transport="mail",event="said"} 0
# HELP mirrorbus_lag_seconds How far.
# TYPE mirrorbus_lag_seconds gauge
mirrorbus_lag_seconds{mirror="a\"b\\c\nd�"} 0.25
`
	var got strings.Builder
	if n, err := p.WriteTo(&got); err != nil || n != int64(len(want)) || got.String() != want {
		t.Errorf("wrote %d bytes, %v:\n%s", n, err, got.String())
	}
}
