package enrol

const masterConfig = `# mirrorbus on the master. Every setting and its default: mirrorbus check --show
name   = {{toml .Name}}              # the principal that announces
key    = "announce_key"      # its private key; name the .pub file to sign through ssh-agent
trust  = "allowed_signers"   # whose reports count: mirrorbus mirror add
state  = {{toml .State}}
socket = {{toml .Socket}}
{{range .Modules}}
[[module]]
name = {{toml .Name}}
path = {{toml .Path}}
upstream = {{toml .Upstream}}  # where mirrors pull it from; only told to those who join
{{end}}
[transport.hub]
listen   = {{toml .Listen}}
host_key = "hub_host_key"
`

const mirrorConfig = `# mirrorbus on a mirror. Every setting and its default: mirrorbus check --show
name   = {{toml .Name}}              # the principal that reports
key    = "mirror_key"
trust  = "allowed_masters"
state  = {{toml .State}}
socket = {{toml .Socket}}

[[grant]]                    # who may announce what; a name in the trust file alone allows nothing
principal = {{toml .Join.Master}}
modules   = [{{range $i, $m := .Modules}}{{if $i}}, {{end}}{{toml $m.Name}}{{end}}]
kinds     = ["change", "flip", "head"]
{{range .Modules}}
[[module]]
name     = {{toml .Name}}
path     = {{toml .Path}}
upstream = {{toml .Upstream}}
# filter = ["- /isos/"]      # this mirror's subset, as rsync filter rules
# last   = ["rpm"]           # what names other files and is synced after them: rpm, debian, alpine, cpan, generic, or patterns
{{end}}
[transport.hub]
address  = {{toml .Join.Hub}}
host_key = {{toml .Join.HubKey}}
`
