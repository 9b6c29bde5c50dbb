package rsync

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// An Upstream is where a module is fetched from, as the mirror's own configuration says. No announcement ever changes it.
type Upstream struct {
	// URL is rsync://[user@]host[:port]/module[/folder], or [user@]host:/folder to reach rsync through a remote shell.
	URL string

	// PasswordFile holds the password of an rsync daemon's user. Others must not be able to read it.
	PasswordFile string

	// Shell is the remote shell with its arguments, for host:/folder (where empty means ssh in batch mode) or to reach a daemon behind ssh.
	Shell []string

	// ConnectTimeout bounds the time to connect, 20 s if zero.
	ConnectTimeout time.Duration

	// BWLimitKiB is the most KiB per second to receive, 0 for no limit.
	BWLimitKiB int

	// Args are further rsync options: -z, -4, -6 and those of AllowedArgs.
	Args []string
}

// AllowedArgs are the options that Upstream.Args may hold: none changes what is written or where.
var AllowedArgs = regexp.MustCompile(`^(-z|-4|-6|-W|--compress|--no-compress|--whole-file|--ipv4|--ipv6|--fsync|--protocol=\d+|--address=[0-9A-Za-z.:]+|` +
	`--compress-choice=\w+|--compress-level=\d+|--skip-compress=[\w/.+-]+|--checksum-choice=[\w,]+|--sockopts=[\w=,]+|--rsync-path=[\w/.+-]+)$`)

var (
	remoteHost = regexp.MustCompile(`^([A-Za-z0-9._-]+@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(/.*)$`)
	remotePath = regexp.MustCompile(`^[A-Za-z0-9/._+~=@%,:-]*$`) // what neither a shell nor rsync takes for a pattern
	moduleName = regexp.MustCompile(`^[A-Za-z0-9._+~=@%,: -]+$`)
)

// source is an upstream after parsing: what rsync is given as its source argument.
type source struct {
	url    string // with a trailing slash: the root that listed names are relative to
	folder string // put before each listed name, "" for none
	daemon bool   // rsync protocol without a remote shell
}

// parse checks u.
func (u Upstream) parse() (source, error) {
	s, err := u.parseURL()
	if err != nil {
		return s, err
	}
	for _, arg := range u.Args {
		if !AllowedArgs.MatchString(arg) {
			return s, fmt.Errorf("rsync option %q is not allowed for an upstream: it could change what is written or where", arg)
		}
	}
	for _, word := range u.Shell {
		if strings.ContainsAny(word, "'\"\n\x00") || word == "" {
			return s, fmt.Errorf("remote shell: argument %q: must not be empty or contain quotes or line ends", word)
		}
	}
	if u.BWLimitKiB < 0 || u.ConnectTimeout < 0 {
		return s, fmt.Errorf("upstream %s: a limit is negative", u.URL)
	}
	return s, u.checkPasswordFile()
}

func (u Upstream) parseURL() (source, error) {
	if rest, ok := strings.CutPrefix(u.URL, "rsync://"); ok {
		return u.parseDaemon(rest)
	}
	m := remoteHost.FindStringSubmatch(u.URL)
	switch {
	case m == nil:
		return source{}, fmt.Errorf("upstream %q: must be rsync://host/module/ or host:/folder/ (with an absolute folder)", redact(u.URL))
	case m[1]+m[2] == "" || m[1]+m[2] != strings.TrimLeft(m[1]+m[2], "-"):
		return source{}, fmt.Errorf("upstream %q: a host must not begin with a dash", u.URL)
	case !remotePath.MatchString(m[3]) || path.Clean(m[3]) != strings.TrimSuffix(m[3], "/") && m[3] != "/":
		return source{}, fmt.Errorf("upstream %q: the folder must be clean and free of blanks and wildcards", u.URL)
	}
	return source{url: strings.TrimSuffix(u.URL, "/") + "/"}, nil
}

func (u Upstream) parseDaemon(rest string) (source, error) {
	p, err := url.Parse(u.URL)
	if err != nil {
		return source{}, fmt.Errorf("upstream %q: not an address", redact(u.URL))
	}
	if _, has := p.User.Password(); has {
		return source{}, fmt.Errorf("upstream %q: a password in the address is seen by every user of this host; use a password file", redact(u.URL))
	}
	host, tail, _ := strings.Cut(rest, "/")
	module, folder, _ := strings.Cut(strings.TrimSuffix(tail, "/"), "/")
	switch {
	case p.Hostname() == "" || strings.HasPrefix(host, "-"):
		return source{}, fmt.Errorf("upstream %q: no host; write rsync://host/module/", u.URL)
	case strings.ContainsAny(host, "!$&'()*;<>|`\""): // a URL may have them there
		return source{}, fmt.Errorf("upstream %q: the host, or the user before it, has characters that a shell reads; write rsync://user@host/module/", u.URL)
	case p.RawQuery != "" || p.Fragment != "":
		return source{}, fmt.Errorf("upstream %q: must not contain ? or #", u.URL)
	case !moduleName.MatchString(module):
		return source{}, fmt.Errorf("upstream %q: no module, or one with characters that rsync takes for a pattern", u.URL)
	case folder != "" && (CheckPath(folder) != nil || !remotePath.MatchString(folder)):
		return source{}, fmt.Errorf("upstream %q: the folder must be clean and free of blanks and wildcards", u.URL)
	}
	return source{url: "rsync://" + host + "/" + module + "/", folder: folder, daemon: len(u.Shell) == 0}, nil
}

func redact(address string) string {
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			user, _, _ := strings.Cut(rest[:i], ":")
			return scheme + "://" + user + rest[i:]
		}
	}
	return address
}

func (u Upstream) checkPasswordFile() error {
	if u.PasswordFile == "" {
		return nil
	}
	info, err := os.Stat(u.PasswordFile)
	switch {
	case err != nil:
		return fmt.Errorf("password file: %w", err)
	case info.Mode().Perm()&0o007 != 0:
		return fmt.Errorf("password file %s can be used by others: chmod 600 it", u.PasswordFile)
	case !filepath.IsAbs(u.PasswordFile):
		return fmt.Errorf("password file %s: give an absolute path", u.PasswordFile)
	}
	return nil
}

// args are the options that concern the connection.
func (u Upstream) args(s source, stall time.Duration) []string {
	timeout := u.ConnectTimeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	args := []string{"--timeout=" + seconds(stall)}
	if s.daemon {
		args = append(args, "--contimeout="+seconds(timeout), "--sockopts=TCP_NODELAY")
	} else {
		shell := u.Shell
		if len(shell) == 0 {
			shell = []string{"ssh", "-oBatchMode=yes", "-oConnectTimeout=" + seconds(timeout)}
		}
		args = append(args, "--rsh="+quote(shell))
	}
	if u.PasswordFile != "" {
		args = append(args, "--password-file="+u.PasswordFile)
	}
	if u.BWLimitKiB > 0 {
		args = append(args, "--bwlimit="+strconv.Itoa(u.BWLimitKiB))
	}
	return append(args, u.Args...)
}

// quote writes a command as rsync's --rsh reads it: blanks separate, single quotes protect.
func quote(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if strings.ContainsAny(w, " \t") {
			w = "'" + w + "'"
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}

// seconds rounds up: rsync takes 0 for no limit.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64(max((d+time.Second-1)/time.Second, 1)), 10)
}
