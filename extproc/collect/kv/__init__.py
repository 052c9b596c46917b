"""The exact cache index: which blocks each engine holds, from the KV events that it publishes itself.

target.py      which engine a feed follows
feed.py        one feed: discovers, subscribes, catches up, applies, publishes (the loop around the rest)
discover.py    where the engine publishes: asks it, else its ModelServer says so
sockets.py     ZeroMQ sockets that do not block the loop (the only importer of zmq)
subscribe.py   batches as they are published; replay.py batches as they are repeated
sequence.py    which batch comes next, what is missing, what a restart looks like; pure
events.py      msgpack of vLLM and SGLang, old and new -> events; pure
ledger.py      events -> blocks that appeared and disappeared, under our own names; pure
"""
