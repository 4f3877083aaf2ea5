"""Setting up a machine for the project: packages, kernel, virtual environment, launcher. Standard library only."""
