"""TCP addresses as people write them: ``host:port``, an IPv6 host in brackets."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

_WRITTEN = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[^][:/\s]+)):(?P<port>[0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host, an IPv6 one without brackets, and a port from 0 to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """The reverse of `str`; raises ValueError on anything else."""
        written = _WRITTEN.fullmatch(text)
        if written is None or int(written["port"]) > 65535:
            raise ValueError(
                f"{text} is not HOST:PORT, e.g. 127.0.0.1:9190 or [::1]:9190, with a port from 0 to 65535"
            )
        return cls(written["v6"] or written["host"], int(written["port"]))

    @classmethod
    def of_ip(cls, text: str) -> "Address":
        """As `parse`, with an IP address as its host: what one can listen on; raises ValueError if not."""
        address = cls.parse(text)
        return cls(ip(address.host), address.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def ip(host: str) -> str:
    """`host`, an IPv6 one in brackets or not, if it is an IP address, in its usual form; else ValueError.

    Names are refused, ``localhost`` too: Envoy listens on addresses, and a name may stand for several.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = ip_address(bare)
    except ValueError:
        found = None
    if found is None or (isinstance(found, IPv6Address) and found.scope_id is not None):
        raise ValueError(
            f"{host} is no IP address: write 127.0.0.1 or ::1 for this machine alone, "
            "0.0.0.0 or :: for all that reach it"
        )
    return str(found)
