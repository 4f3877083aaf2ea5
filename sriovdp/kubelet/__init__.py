"""The kubelet's side: registration and the device plugin service. The only importer of gRPC."""

import os

# gRPC's fork handlers stop its threads at each fork of this process, and it complains on stderr when they cannot. No
# child of ours ever calls gRPC. It reads this once, at its import: only here comes before every such import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
