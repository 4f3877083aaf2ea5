"""What is kept on disk: the journal, how PFs were before us, and files that are whole or not there."""
