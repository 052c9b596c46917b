"""A fake vLLM 0.32: its HTTP API, its metrics, its prefix cache and its queue, without a model.

settings.py  every knob, with unit and default
tokens.py    text to token ids and back (pure)
reply.py     what the engine says: its name first, then words that depend on the prompt (pure)
cache.py     prefix cache: chained block hashes, LRU, KV usage (pure)
batch.py     who runs, who waits, when a prefill is done (pure; the time is an argument)
pace.py      how fast answers grow beside each other and beside a prompt (pure, likewise)
events.py    KV events: what happened to the blocks, numbered and kept for replay (pure)
models.py    the base model and its LoRA adapters (pure)
faults.py    what the engine does wrong on purpose (pure)
journal.py   the last requests received, byte for byte (pure)
families.py  metric families in a registry of their own
metrics.py   vLLM's families that every rank has a series of
frontend.py  vLLM's families that belong to the server
runtime.py   the asyncio layer over batch: one timer, one future per request
ranks.py     the data-parallel ranks: a runtime each, with its own batch and cache
transfer/    KV caches on their way between engines, where prefill and decode are apart
publisher.py KV events over ZeroMQ, one publisher per rank
api/         request and answer bodies, one file per endpoint family, and the aiohttp application
server.py    listens; ``running(settings)`` is the library entry
__main__.py  the command line
"""

from benchmarks.engine.server import RunningEngine, running
from benchmarks.engine.settings import EngineSettings

__all__ = ["EngineSettings", "RunningEngine", "running"]
