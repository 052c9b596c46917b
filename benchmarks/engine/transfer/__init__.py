"""KV caches on their way between engines: prefill here, decode there.

fields.py     what a body says about a transfer
part.py       the part that one request plays in a transfer, and the errors
shelf.py      blocks that outlive their request until another engine has them (pure)
dock.py       gives those blocks away and takes them back in time
wire.py       the messages between two engines, whose form is ours
server.py     listens on the KV port, where other engines fetch
client.py     asks other engines
origins.py    where the KV cache of a prompt comes from
counters.py   vLLM's metric families about transfers
connectors/   one file per connector: what it asks of a body, and what happens to a wrong one
desk.py       one engine's transfers: all of the above put together

A transfer is one request from the decode engine to the KV port of the prefill engine: it stays open until the
prompt is computed, where the connector waits for that, and then for as long as the transfer takes. Who hangs
up wants the blocks no more.
"""
