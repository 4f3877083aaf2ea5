"""What this host itself uses an interface for: a bond or bridge, an interface on top of it, an address, a route."""

import errno
import ipaddress
import socket

from sriovdp.errors import KernelError
from sriovdp.kernel.routes import is_of_host, list_stack
from sriovdp.kernel.rtnl import address as addresses
from sriovdp.kernel.rtnl import codec
from sriovdp.kernel.rtnl import route as routes
from sriovdp.kernel.rtnl.link import Link
from sriovdp.kernel.rtnl.requests import Requests
from sriovdp.kernel.sysfs import Folder, Sysfs

_LOCAL_TABLE = 255


def find_host_use(sysfs: Sysfs, link: Link) -> str:
    """What the host uses an interface of this namespace for, in words; empty for nothing. Raises KernelError.

    Link-local addresses and their routes do not count: the kernel makes them by itself. An interface that leaves
    this namespace meanwhile is used by another request, not by the host.
    """
    uppers = list(list_stack(Folder(str(sysfs.root / "class/net")), link.name))[1:]
    if uppers:
        return f"{uppers[0]} is on top of {link.name}"
    requests = Requests(strict=True)
    try:
        if address := _find_address(requests, link):
            return f"{link.name} has address {address}"
        # a link that is down has no routes
        route = _find_route(requests, link) if link.up else ""
        return f"{link.name} has the route to {route}" if route else ""
    except KernelError as error:
        if error.errno == errno.ENODEV:
            return ""
        raise
    finally:
        requests.close()


def _find_address(requests: Requests, link: Link) -> str:
    query = addresses.encode_query(link.ifindex)
    answers = requests.ask(addresses.GETADDR, codec.DUMP, query, f"listing the addresses of {link.name}")
    found = (address for address in map(addresses.read_address, answers) if address)
    return next((one.text for one in found if one.ifindex == link.ifindex and is_of_host([one.text])), "")


def _find_route(requests: Requests, link: Link) -> str:
    for family in (socket.AF_INET, socket.AF_INET6):
        query = routes.encode_query(family, link.ifindex)
        answers = requests.ask(routes.GETROUTE, codec.DUMP, query, f"listing the routes of {link.name}")
        for route in map(routes.read_route, answers):
            if route and link.ifindex in route.interfaces and route.table != _LOCAL_TABLE:
                network = ipaddress.ip_network(route.destination)
                if not (network.is_link_local or network.is_multicast):
                    return route.destination
    return ""
