"""The VF of an attachment: its settings, its way into a sandbox and back, and how it was."""
