"""Stand-ins for the programs around the agent, each checked against the real thing in at least one test."""
