"""Every Redis key of kvoy, as a function of the deployment group.

All keys of a group carry the hash tag ``{group}``, so they live in one cluster slot and one Lua script may
touch several. The prefix carries the schema version: a new schema never reads an old one's bytes.
"""

SCHEMA = "kvoy1"


def config(group: str) -> str:
    """HASH: ``epoch``, ``generation``, and one field per record (`records.Record` in msgpack)."""
    return f"{SCHEMA}:{{{group}}}:config"


def log(group: str) -> str:
    """STREAM: one entry per publication, field ``p`` (`records.Publication` in msgpack)."""
    return f"{SCHEMA}:{{{group}}}:log"


def inflight_total(group: str) -> str:
    """HASH: pod key to requests in flight, summed over all live instances."""
    return f"{SCHEMA}:{{{group}}}:inflight:total"


def inflight_leases(group: str) -> str:
    """ZSET: ext_proc instance to the time (ms, Redis clock) at which its lease runs out."""
    return f"{SCHEMA}:{{{group}}}:inflight:leases"


def inflight_of(group: str, instance: str) -> str:
    """HASH: pod key to requests in flight, as one instance last stated it."""
    return f"{SCHEMA}:{{{group}}}:inflight:of:{instance}"
