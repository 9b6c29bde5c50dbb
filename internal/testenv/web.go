package testenv

import (
	"fmt"
	"net"
	"time"
)

// A webServer is a server that is ready when its port takes connections.
type webServer struct {
	server
	Port int
}

func (w *webServer) listens() error {
	c, err := net.DialTimeout("tcp", w.Addr(), time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// Addr is the host and port.
func (w *webServer) Addr() string { return fmt.Sprint("127.0.0.1:", w.Port) }
