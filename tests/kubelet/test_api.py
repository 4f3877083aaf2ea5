"""The stubs that are checked in are those of the .proto files, and the protocols are the kubelet's."""

from pathlib import Path

from sriovdp.kubelet.api import deviceplugin_v1beta1_pb2, pluginregistration_v1_pb2, podresources_v1_pb2
from sriovdp.kubelet.api.regenerate import PACKAGE, ROOT, generate


def test_regenerating_gives_the_same_files(tmp_path: Path) -> None:
    """Nobody edited a stub, nor a .proto file without regenerating."""
    generate(tmp_path)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / PACKAGE).iterdir()}
    kept = {path.name: path.read_bytes() for path in (ROOT / PACKAGE).glob("*_pb2*")}
    assert len(fresh) == 12
    assert fresh == kept


def test_services_have_the_names_the_kubelet_calls() -> None:
    """The names on the wire are those of the kubelet, whatever the Python modules are called."""
    modules = (deviceplugin_v1beta1_pb2, pluginregistration_v1_pb2, podresources_v1_pb2)
    names = {service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()}
    assert names == {
        "v1beta1.Registration",
        "v1beta1.DevicePlugin",
        "pluginregistration.Registration",
        "v1.PodResourcesLister",
    }
