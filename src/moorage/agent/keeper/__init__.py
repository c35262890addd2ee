"""The process that starts a node's jobs and outlives the agent. Standard library only."""
