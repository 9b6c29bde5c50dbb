// Package deploy holds what an operator installs beside the program: systemd units, sysusers.d and tmpfiles.d snippets, an rsyncd.conf for a
// master, and sample configurations. There is no code in it; its test reads every file with the program that will.
package deploy
