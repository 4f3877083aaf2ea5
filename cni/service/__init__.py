"""What serves launchers: the socket, its connections, and the spool for when there was no agent."""
