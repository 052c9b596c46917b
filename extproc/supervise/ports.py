"""TCP ports for children: looked at before anything starts, so that a busy one is a plain error."""

import contextlib
import random
import socket

from extproc.supervise.address import Address

_QUIET = range(10_000, 32_768)
"""Where free ports are looked for first. Linux gives none of these to whoever asks for any port, or connects
to somebody, so they are still free when a child listens on them."""
_TRIES = 20


class PortTaken(OSError):
    """Somebody else listens there, or this host has no such address; the text says which and why."""


def claim(host: str, first: int, count: int = 1) -> tuple[int, ...]:
    """`count` ports of the IP address `host`: from `first` on, or any free ones if it is 0.

    They are free now and not held. Raises PortTaken.
    """
    with contextlib.ExitStack() as held:
        wished = [Address(host, first + at if first else 0) for at in range(count)]
        return tuple(_bound(held, address) for address in wished)


def claim_addresses(first: str, count: int) -> tuple[str, ...]:
    """As `claim`, from and to ``ip:port``; raises ValueError if `first` is none."""
    address = Address.of_ip(first)
    return tuple(str(Address(address.host, port)) for port in claim(address.host, address.port, count))


def _bound(held: contextlib.ExitStack, address: Address) -> int:
    for port in () if address.port else random.sample(_QUIET, _TRIES):
        with contextlib.suppress(PortTaken):
            return _held(held, Address(address.host, port))
    return _held(held, address)


def _held(held: contextlib.ExitStack, address: Address) -> int:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address.host, address.port))
        # Until it listens, another socket may bind the same port.
        listening.listen()
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "ports end at 65535"
        raise PortTaken(
            f"cannot listen on {address} ({why}); choose another port, or 0 for a free one"
        ) from None
    return int(listening.getsockname()[1])
