package main

import "github.com/spf13/cobra"

// commands lists every command.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.demoCommand(), a.initCommand(), a.amqpCommand(),
		a.hubCommand(), a.publishCommand(), a.scanCommand(), a.composeCommand(), a.waitCommand(), a.logCommand(), a.watchCommand(), a.mirrorCommand(), a.manifestCommand(), a.commandCommand(),
		a.agentCommand(), a.receiveCommand(), a.pollCommand(), a.planCommand(), a.verifyCommand(),
		a.statusCommand(), a.showCommand(), a.checkCommand(), a.doctorCommand(), a.versionCommand(), a.statesTopic(),
	}
}
