"""``http`` and ``lmcache``: the engines share a store of KV caches, or find each other's by themselves.

The prefill engine computes the prompt for one token; the decode engine then gets the request as it is, and
finds the cache by the prompt's hash.
"""

from extproc.handoff.connector import Connector, Leg, Reply, Transfer


class Shared(Connector):
    """No parameters on either leg."""

    order = "sequential"

    def prefill(self, transfer: Transfer) -> Leg:
        return Leg()

    def decode(self, transfer: Transfer, reply: Reply | None) -> Leg:
        return Leg()
