package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// An Nginx is a web server that serves a folder.
type Nginx struct{ webServer }

// StartNginx serves the folder root. extra are further lines of the server's section.
func StartNginx(t testing.TB, root, extra string) *Nginx {
	t.Helper()
	binary := Need(t, "nginx")
	return started(t, func() *Nginx { return newNginx(t, binary, root, extra) })
}

func newNginx(t testing.TB, binary, root, extra string) *Nginx {
	t.Helper()
	dir, user := t.TempDir(), ""
	n := &Nginx{webServer{Port: FreePort(t)}}
	if os.Geteuid() == 0 {
		user = "user root;\n" // who else may read the folder of a test?
	}
	conf := filepath.Join(dir, "nginx.conf")
	writeFile(t, conf, fmt.Sprintf(`%[1]sdaemon off;
pid %[2]s/pid;
error_log stderr warn;
worker_processes 1;
events {}
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server {
		listen 127.0.0.1:%[3]d;
		root %[4]s;
		default_type application/octet-stream;
%[5]s
	}
}
`, user, dir, n.Port, root, extra))
	n.server = server{t: t, argv: []string{binary, "-p", dir, "-e", "stderr", "-c", conf}, logFile: filepath.Join(dir, "log"), ready: n.listens}
	return n
}
