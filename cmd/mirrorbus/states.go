package main

import "github.com/spf13/cobra"

// statesTopic is a help topic: it explains the words of status.
func (a *app) statesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "states",
		Short: "what the words of status mean",
		Long: `The words of "mirrorbus status".

On a mirror, for a module:

  current           everything heard of is on disk, and the head that says so is fresh
  syncing           a batch is running
  behind            something was heard that is not on disk: it is about to be fetched
  new               never compared with the upstream's manifest: it will be, then it is current
  composing         something is to be fetched, and the master is in the middle of a compose: fetched when that ends, or at the time shown
  waiting-upstream  the upstream does not have it yet: asked again in seconds
  retrying          the last attempt failed: tried again at the time shown
  blocked           the disk is full: goes on by itself once there is room
  held              more deletions than allowed: waits for "mirrorbus agent confirm MODULE"
  quarantined       one serial was heard with two different contents: waits for "mirrorbus agent release MODULE"
  deaf              nothing is missing as far as is known, but the newest head has expired: the upstream is asked again and again
  stale             the upstream was asked, and is out of date: its head has expired, or is of an older history. It is asked again, and not followed

On a master, for a mirror:

  current           everything announced is on its disk
  behind            it is working on it
  failing           it said that it could not, and tries again
  blocked           it said that it cannot go on until something there changes
  away              not heard of for longer than away_after; it catches up when it comes back
  diverged          it has another history than this master: another epoch, or another line at the same serial

On a master, for a tree that is watched (mirrorbus watch --status):

  starting          nothing is watched yet
  watching          what changes is announced
  away              the tree is not there, or its file system is not mounted: nothing of it is announced until it is back, then it is scanned

On both, for a transport; what is beside it says why:

  connected         it works, as far as is known
  degraded          it is connected, but somebody is not reached, or what waits is not taken: ends by itself when that does
  not connected     it is tried again and again`,
	}
}
