"""What a decision costs, and what keeps its replicas up to date.

prompts.py     requests of a size, whose beginnings are known or new (pure)
scene.py       the engines, and what they have cached already (pure)
worker.py      the decisions of one worker, without gRPC
quiet.py       one decision after the other
alongside.py   decisions while two workers follow a busy store
feed.py        what the collectors publish meanwhile
stalls.py      how long an event loop was held up
lag.py         from publishing to having been applied in other processes
ingest.py      KV events of engines -> changes of the index
memory.py      bytes per index entry, and whether memory grows
tokenising.py  prompt -> token ids
apart.py       a function in a process of its own
report.py      measurements -> rows, tables, JSON
__main__.py    the command: `make bench-schedule`
"""
