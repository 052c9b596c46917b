"""A paged KV cache by vLLM's rules, as far as its events can tell: the truth that a ledger must arrive at."""

from struct import pack

import xxhash

from extproc.cache.chain import kv_chain, kv_root

SECRET = b"a secret"
BLOCK = 4
"""Tokens per block."""


def token_bytes(tokens):
    return pack(f"<{len(tokens)}I", *tokens)


def own_chain(tokens, adapter="", salt="", block=BLOCK):
    """What a worker computes for a prompt."""
    return kv_chain(kv_root(adapter, salt, SECRET), token_bytes(tokens), block)


def stored(hashes, tokens, parent=None, block=BLOCK, **fields):
    """A BlockStored event as vLLM 0.32 sends it."""
    event = {
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": list(tokens),
        "block_size": block,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * len(hashes),
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }
    return event | fields


def removed(*hashes, **fields):
    """A BlockRemoved event as vLLM 0.32 sends it."""
    return {"type": "BlockRemoved", "block_hashes": list(hashes), "medium": "GPU", "group_idx": 0} | fields


CLEARED = {"type": "AllBlocksCleared"}


class Pool:
    """Physical blocks; each is free or in use, and cached or not."""

    def __init__(self, size, boot=0):
        """`boot` seeds the engine's hashes: another one for each process."""
        self._boot = boot
        self._cached = {}
        """Physical block to (engine's hash, our hash)."""
        self._free = list(range(size))
        """The next to be reused first."""
        self._running = []

    @property
    def truth(self):
        """Our hashes of everything cached."""
        return {own for _, own in self._cached.values()}

    def start(self, tokens, adapter="", salt=""):
        """Compute a prompt; the events of that step."""
        engine = self._engine_chain(tokens, adapter, salt)
        own = own_chain(tokens, adapter, salt)
        hit = self._hits(engine[: (len(tokens) - 1) // BLOCK])
        missing = range(len(hit), len(engine))
        if len(set(self._free) - set(hit)) < len(missing):
            return []
        self._free = [block for block in self._free if block not in hit]
        events, blocks = [], []
        for _ in missing:
            blocks.append(self._free.pop(0))
            if blocks[-1] in self._cached:
                events.append(removed(self._cached.pop(blocks[-1])[0]))
        for at, block in zip(missing, blocks, strict=True):
            self._cached[block] = (engine[at], own[at])
        self._running.append(hit + blocks)
        if blocks:
            events.append(self._stored(engine, tokens, len(hit), adapter, salt))
        return events

    def finish(self, which):
        """End a running request: its last block is reused first."""
        if self._running:
            blocks = self._running.pop(which % len(self._running))
            in_use = {block for request in self._running for block in request}
            self._free += [block for block in reversed(blocks) if block not in in_use]

    def reset(self):
        """Drop everything, if nothing runs."""
        if self._running:
            return []
        self._cached.clear()
        return [CLEARED]

    def _hits(self, engine):
        by_hash = {hash_: block for block, (hash_, _) in self._cached.items()}
        hit = []
        for hash_ in engine:
            if hash_ not in by_hash:
                break
            hit.append(by_hash[hash_])
        return hit

    def _engine_chain(self, tokens, adapter, salt):
        seed = xxhash.xxh3_64_intdigest(f"{adapter}/{salt}/{self._boot}".encode())
        chunks = [tokens[at : at + BLOCK] for at in range(0, len(tokens) // BLOCK * BLOCK, BLOCK)]
        return [seed := xxhash.xxh3_64_intdigest(repr(chunk).encode(), seed) for chunk in chunks]

    @staticmethod
    def _stored(engine, tokens, first, adapter, salt):
        extra = [[adapter] if adapter else [] for _ in engine]
        if salt:
            extra[0].append(salt)
        return stored(
            engine[first:],
            tokens[first * BLOCK : len(engine) * BLOCK],
            engine[first - 1] if first else None,
            lora_id=1 if adapter else None,
            lora_name=adapter or None,
            extra_keys=[keys or None for keys in extra[first:]],
        )
