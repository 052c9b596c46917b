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


def live(group: str) -> str:
    """STREAM: what is stated by the second, field ``f`` (`live.encode`)."""
    return f"{SCHEMA}:{{{group}}}:live"


def cache(group: str) -> str:
    """STREAM: changes of who has which blocks.

    Fields: ``p`` producer, ``s`` its sequence number, ``f`` packed frames (`extproc.cache.frames`).
    """
    return f"{SCHEMA}:{{{group}}}:cache"


def cache_snapshot(group: str, namespace: int, life: int) -> str:
    """STRING that expires: all blocks of one life of an engine in a namespace (`extproc.cache.snapshots`)."""
    return f"{SCHEMA}:{{{group}}}:cache:{namespace}:{life:016x}"


def secret(group: str) -> str:
    """STRING: random bytes that seed the hashes of the group, so that outsiders can not compute them."""
    return f"{SCHEMA}:{{{group}}}:secret"


def lease(group: str, kind: str, name: str) -> str:
    """STRING that expires: who holds `name`, of all things of a kind that have one holder at a time."""
    return f"{SCHEMA}:{{{group}}}:lease:{kind}:{name}"


def members(group: str, kind: str) -> str:
    """ZSET: name of a process of a kind to the time (ms, Redis clock) until which it counts as alive."""
    return f"{SCHEMA}:{{{group}}}:members:{kind}"
