package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// An Apache is a web server that serves a folder.
type Apache struct{ webServer }

// apacheModules are where distributions keep them.
var apacheModules = []string{"/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules", "/usr/libexec/apache2"}

// StartApache serves the folder root. extra are further lines of its configuration. As root it serves as another user, who may look into the folders above root from
// then on.
func StartApache(t testing.TB, root, extra string) *Apache {
	t.Helper()
	binary, ok := find("httpd") // as other distributions than Debian call it, and busybox a server of its own
	if _, is := find("apachectl"); !is || !ok {
		binary = Need(t, "apache2")
	}
	conf := apacheModulesConf(t)
	if os.Geteuid() == 0 {
		conf += "User nobody\nGroup #65534\n" // it refuses to serve as root
		openFolders(t, root)
	}
	return started(t, func() *Apache { return newApache(t, binary, root, conf+extra) })
}

// apacheModulesConf loads what the configurations of ours need and is not built in.
func apacheModulesConf(t testing.TB) (conf string) {
	t.Helper()
	for _, dir := range apacheModules {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		for _, m := range []string{"mpm_event", "unixd", "authz_core", "headers", "proxy", "proxy_http"} {
			file := filepath.Join(dir, "mod_"+m+".so")
			if _, err := os.Stat(file); err == nil {
				conf += fmt.Sprintf("LoadModule %s_module %s\n", m, file)
			}
		}
		return conf
	}
	Missing(t, "no modules of Apache in "+fmt.Sprint(apacheModules))
	return ""
}

// openFolders lets others look into the folders above root that this test made.
func openFolders(t testing.TB, root string) {
	t.Helper()
	for dir := root; dir != filepath.Clean(os.TempDir()) && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func newApache(t testing.TB, binary, root, extra string) *Apache {
	t.Helper()
	dir := t.TempDir()
	a := &Apache{webServer{Port: FreePort(t)}}
	conf := filepath.Join(dir, "conf")
	writeFile(t, conf, fmt.Sprintf(`ServerRoot %[1]s
DefaultRuntimeDir %[1]s
PidFile %[1]s/pid
ErrorLog %[1]s/log
ServerName localhost
Listen 127.0.0.1:%[2]d
DocumentRoot %[3]s
%[4]s
`, dir, a.Port, root, extra))
	a.server = server{t: t, argv: []string{binary, "-d", dir, "-f", conf, "-DFOREGROUND"}, logFile: filepath.Join(dir, "log"), ready: a.listens}
	return a
}
