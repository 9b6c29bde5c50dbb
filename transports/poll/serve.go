package poll

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Limits of the web server. What it has is small, and who asks for it says little.
const (
	askTime    = 10 * time.Second // to say what one wants
	answerTime = 30 * time.Second
	idleTime   = 2 * time.Minute // between two questions over one connection
	maxAsked   = 16 << 10        // bytes of a question
	farewell   = time.Second     // for what is being answered when it ends
)

func (m *master) listen(ctx context.Context) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", m.conf.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: %w; stop the other program or set listen to another port", m.conf.Listen, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: %w; set listen to a port above 1023 or give the service CAP_NET_BIND_SERVICE", m.conf.Listen, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", m.conf.Listen, err)
	}
	if m.conf.Cert == "" {
		return l, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: m.certificate}
	if _, err := m.certificate(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, conf), nil
}

// certificate reads it anew for each connection: it is renewed while the process runs.
func (m *master) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(string(m.conf.Cert), string(m.conf.Key))
	if err != nil {
		return nil, fmt.Errorf("cert_file and key_file: %w", err)
	}
	return &cert, nil
}

// serve answers until ctx is done. What it has started has ended then.
func (m *master) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: m.pages(), ReadTimeout: askTime, WriteTimeout: answerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxAsked,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug), // strangers cause these lines
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close() //nolint:errcheck // it is given up on those who are slow
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-ended
		return context.Cause(ctx)
	}
	return errors.Join(fmt.Errorf("serve on %s: %w", m.conf.Listen, err), server.Close())
}

// pages answers with what is shown.
func (m *master) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{module}/"+feedFile, m.page(feedFile))
	mux.HandleFunc("GET /{module}/"+headFile, m.page(headFile))
	return mux
}

func (m *master) page(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		d, ok := m.shown[r.PathValue("module")+"/"+name]
		m.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		m.served.Add(1)
		w.Header().Set("Content-Type", d.kind)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(m.conf.MaxAge.Seconds())))
		w.Header().Set("ETag", d.tag)
		http.ServeContent(w, r, "", d.at, bytes.NewReader(d.body))
	}
}
