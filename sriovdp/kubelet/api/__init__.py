"""The kubelet's protocols: api.proto files of Go module k8s.io/kubelet v0.37.2 (Apache-2.0), unmodified, and stubs.

    deviceplugin_v1beta1.proto     pkg/apis/deviceplugin/v1beta1/api.proto
    pluginregistration_v1.proto    pkg/apis/pluginregistration/v1/api.proto
    podresources_v1.proto          pkg/apis/podresources/v1/api.proto

Everything named *_pb2* is generated: `python -m sriovdp.kubelet.api.regenerate`.
"""
