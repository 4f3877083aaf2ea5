"""Make the node as the config says: `plan` (pure), `usage` (who would be disturbed), `apply`."""
