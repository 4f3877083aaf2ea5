"""The kubelet's side, over real unix sockets."""
