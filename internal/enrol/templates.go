package enrol

const masterConfig = `# mirrorbus on the master. Every setting and its default: mirrorbus check --show
name   = {{printf "%q" .Name}}              # the principal that announces
key    = "announce_key"      # its private key; name the .pub file to sign through ssh-agent
trust  = "allowed_signers"   # whose reports count: mirrorbus mirror add
state  = {{printf "%q" .State}}
socket = {{printf "%q" .Socket}}
{{range .Modules}}
[[module]]
name = {{printf "%q" .Name}}
path = {{printf "%q" .Path}}
upstream = {{printf "%q" .Upstream}}  # where mirrors pull it from; only told to those who join
{{end}}
[transport.hub]
listen   = {{printf "%q" .Listen}}
host_key = "hub_host_key"
`

const mirrorConfig = `# mirrorbus on a mirror. Every setting and its default: mirrorbus check --show
name   = {{printf "%q" .Name}}              # the principal that reports
key    = "mirror_key"
trust  = "allowed_masters"
state  = {{printf "%q" .State}}
socket = {{printf "%q" .Socket}}

[[grant]]                    # who may announce what; a name in the trust file alone allows nothing
principal = {{printf "%q" .Join.Master}}
modules   = [{{range $i, $m := .Modules}}{{if $i}}, {{end}}{{printf "%q" $m.Name}}{{end}}]
kinds     = ["change", "flip", "head"]
{{range .Modules}}
[[module]]
name     = {{printf "%q" .Name}}
path     = {{printf "%q" .Path}}
upstream = {{printf "%q" .Upstream}}
# filter = ["- /isos/"]      # this mirror's subset, as rsync filter rules
# last   = ["rpm"]           # what names other files and is synced after them: rpm, debian, alpine, cpan, generic, or patterns
{{end}}
[transport.hub]
address  = {{printf "%q" .Join.Hub}}
host_key = {{printf "%q" .Join.HubKey}}
`
