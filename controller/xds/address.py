"""Addresses as Envoy writes them, from the ``host:port`` and ``unix:PATH`` forms that people write."""

from envoy_data_plane.envoy.config.core import v3 as core


def pipe(path: str) -> core.Address:
    """A Unix socket."""
    return core.Address(pipe=core.Pipe(path=path))


def tcp(host_port: str) -> core.Address:
    """``host:port``, with an IPv6 host in brackets; raises ValueError on anything else."""
    host, colon, port = host_port.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"address {host_port!r} is not host:port with a port from 0 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"address {host_port!r}: write an IPv6 host in brackets, as in [::1]:8080")
    return core.Address(socket_address=core.SocketAddress(address=host.strip("[]"), port_value=int(port)))


def admin(address: str) -> core.Address:
    """``host:port`` or ``unix:PATH``; raises ValueError on anything else."""
    return pipe(address.removeprefix("unix:")) if address.startswith("unix:") else tcp(address)
