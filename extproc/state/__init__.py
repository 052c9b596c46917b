"""The state both services share: the controller writes it, every ext_proc worker reads it.

    keys.py      every Redis key, as a function
    records.py   what is configured: routes, servers, pods, publications (msgspec Structs)
    live.py      what changes by the second: requests in flight, how each engine is
    envoy.py     the header, metadata and cluster names spoken between Envoy, controller and ext_proc
    snapshot.py  what is run: an immutable view compiled from the records
    fold.py      (records, publication) -> records, or a gap
    replica.py   follows the store and always holds a whole snapshot
    engines.py   the newest statement about each engine
    store/       the Redis operations (the only importer of redis)

Authority is in Redis, reads are in process: a decision never waits for Redis.
"""
