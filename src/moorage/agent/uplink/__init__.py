"""What passes between the agent and its server."""
