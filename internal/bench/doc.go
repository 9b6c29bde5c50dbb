// Package bench puts figures of mirrorbus beside those of the bare tools that do the same: rsync started by hand, a full rsync, SQLite, an SSH
// server, find, Debian's ftpsync, the AMQP library. Its tests run real daemons; `make bench` runs them at full size.
//
// Each line of the table is one file. Both sides of a line run in turns, A B A B, on the same tree in the same minute, and the medians are
// compared: what else the machine does then falls on both.
package bench
