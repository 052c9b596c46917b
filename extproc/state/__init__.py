"""The state both services share: the controller writes it, every ext_proc worker reads it.

    keys.py      every Redis key, as a function
    records.py   what is stored: routes, servers, pods, publications (msgspec Structs)
    envoy.py     the header, metadata and cluster names spoken between Envoy, controller and ext_proc
    snapshot.py  what is run: an immutable view compiled from the records
    fold.py      (records, publication) -> records, or a gap
    replica.py   follows the store and always holds a whole snapshot
    store.py     the Redis operations (the only importer of redis); scripts/*.lua are its atomic steps

Authority is in Redis, reads are in process: a decision never waits for Redis.
"""
