"""The Redis operations, each one command, one pipeline or one atomic script.

    store.py           a `Store`: all of the following over one connection
    connection.py      clients, timeouts and errors (the only importer of redis)
    configuration.py   `store.configuration`: publish, load, follow the records
    streams.py         `store.streams`: requests in flight, engines, changes of who has which blocks
    snapshots.py       `store.snapshots`: who has which blocks, whole
    secret.py          `store.secret`: what seeds the hashes of prompts
    leases.py          `store.leases`: which process holds what, which processes there are
    scripts/*.lua      the atomic steps

Nothing is retried here; the loops that use a store decide when to try again (`backoff_s`).
"""

from extproc.state.store.configuration import Configuration, Head, Stored
from extproc.state.store.connection import StoreCorrupt, StoreError, StoreUnavailable, backoff_s
from extproc.state.store.leases import Leases
from extproc.state.store.snapshots import Snapshots, Subject
from extproc.state.store.store import Store
from extproc.state.store.streams import Ends, Entry, Positions, Read, Streams

__all__ = [
    "Configuration",
    "Ends",
    "Entry",
    "Head",
    "Leases",
    "Positions",
    "Read",
    "Snapshots",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "Stored",
    "Streams",
    "Subject",
    "backoff_s",
]
