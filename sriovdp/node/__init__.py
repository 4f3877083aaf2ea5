"""What a node is: its PFs and VFs as the kernel or a recording of it shows it."""
