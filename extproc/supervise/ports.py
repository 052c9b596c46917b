"""TCP ports for children: looked at before anything starts, so that a busy one is a plain error."""

import contextlib
import socket


class PortTaken(OSError):
    """Somebody else listens there, or this host has no such address; the text says which and why."""


def claim(host: str, first: int, count: int = 1) -> tuple[int, ...]:
    """`count` ports of `host`: from `first` on, or any free ones if it is 0.

    They are free now and not held. Raises PortTaken.
    """
    with contextlib.ExitStack() as held:
        wished = [first + at if first else 0 for at in range(count)]
        return tuple(_bound(held, host, port) for port in wished)


def claim_addresses(first: str, count: int) -> tuple[str, ...]:
    """As `claim`, from and to ``host:port``; raises ValueError if `first` is none."""
    host, _, port = first.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{first} is not HOST:PORT, e.g. 127.0.0.1:9190")
    return tuple(f"{host}:{free}" for free in claim(host, int(port), count))


def _bound(held: contextlib.ExitStack, host: str, port: int) -> int:
    try:
        if port > 65535:  # the resolver would take it modulo 65536
            raise OverflowError("ports end at 65535")
        family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listening = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise PortTaken(
            f"cannot listen on {host}:{port} ({why}); choose another port, or 0 for a free one"
        ) from None
    return int(listening.getsockname()[1])
