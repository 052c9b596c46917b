"""Addresses as Envoy writes them, from the ``ip:port`` and ``unix:PATH`` forms that people write."""

from pathlib import Path

from envoy_data_plane.envoy.config.core import v3 as core

from extproc.supervise import Address, socket_path


def pipe(path: str) -> core.Address:
    """A Unix socket."""
    return core.Address(pipe=core.Pipe(path=path))


def tcp(ip_port: str) -> core.Address:
    """``ip:port``, an IPv6 one in brackets; raises ValueError on anything else."""
    address = Address.of_ip(ip_port)
    return core.Address(socket_address=core.SocketAddress(address=address.host, port_value=address.port))


def admin(address: str) -> core.Address:
    """``ip:port`` or ``unix:PATH``; raises ValueError on anything else."""
    if address.startswith("unix:"):
        return pipe(socket_path(Path(address.removeprefix("unix:"))))
    return tcp(address)
