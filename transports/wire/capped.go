package wire

import (
	"bytes"
	"strings"
)

// A Capped keeps the first bytes written to it, and can be read when the writer is done.
type Capped struct{ bytes.Buffer }

// Write implements io.Writer. It takes everything.
func (c *Capped) Write(b []byte) (int, error) {
	c.Buffer.Write(b[:min(len(b), MaxLine-min(MaxLine, c.Len()))])
	return len(b), nil
}

func (c *Capped) String() string { return OneLine(strings.TrimSpace(c.Buffer.String())) }
