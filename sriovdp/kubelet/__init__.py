"""The kubelet's side: registration and the device plugin service. The only importer of gRPC."""
