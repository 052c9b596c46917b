"""``sglang``: SGLang's own protocol. Both engines meet in a room of the prefill engine's bootstrap server.

A decode engine of SGLang refuses a request without a room: it never computes a prompt itself.
"""

from extproc.handoff.connector import Connector, Leg, Reply, Transfer, bracketed


class SGLang(Connector):
    """The same three fields on both legs; the decode engine also learns the prefill endpoint's rank."""

    order = "concurrent"
    decodes_alone = False
    passes_token = True

    def prefill(self, transfer: Transfer) -> Leg:
        return Leg(_meeting(transfer))

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        rank = {} if transfer.rank is None else {"disagg_prefill_dp_rank": b"%d" % transfer.rank}
        return Leg(_meeting(transfer) | rank)


def _meeting(transfer: Transfer) -> dict[str, bytes]:
    """SGLang joins host and port by a colon, so IPv6 comes in brackets."""
    return {
        "bootstrap_host": f'"{bracketed(transfer.source.host)}"'.encode(),
        "bootstrap_port": b"%d" % transfer.source.port,
        "bootstrap_room": b"%d" % transfer.room,
    }
