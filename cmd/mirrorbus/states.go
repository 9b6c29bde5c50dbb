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
  waiting-upstream  the upstream does not have it yet: asked again in seconds
  retrying          the last attempt failed: tried again at the time shown
  blocked           the disk is full: goes on by itself once there is room
  held              more deletions than allowed: waits for "mirrorbus agent confirm MODULE"
  quarantined       one serial was heard with two different contents: waits for "mirrorbus agent release MODULE"
  deaf              nothing is missing as far as is known, but the newest head has expired: the upstream is asked again and again

On a master, for a mirror:

  current           everything announced is on its disk
  behind            it is working on it
  failing           it said that it could not, and tries again
  blocked           it said that it cannot go on until something there changes
  away              not heard of for longer than away_after; it catches up when it comes back
  diverged          it has another history than this master: another epoch, or another line at the same serial`,
	}
}
