// Package crash shows what mirrorbus survives when processes and machines die: its tests run the whole program, built with failpoints, beside a
// real rsync daemon. A hub or an agent is killed at every named step (package failpoint), or its whole file system is put back to what had reached
// the disk, or its disk is full, or its database is damaged, old or gone; then everything must come to be as if nothing had happened.
//
// The long versions are for make crash: MIRRORBUS_CRASH_ROUNDS says how often each point and each power cut is tried.
package crash
