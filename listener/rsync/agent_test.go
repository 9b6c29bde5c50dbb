package rsync

func agentMain() int { return 0 }
