"""Encodes prompts here, off the event loop, and keeps what it encoded.

A conversation comes again with each turn. Its pieces are kept one by one, so only those that are new are
encoded; requests that need the same piece at the same time wait for one of them to encode it.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext

import xxhash

from extproc.tokens.directory import Directory
from extproc.tokens.lru import Lru
from extproc.tokens.model import Model, Turn
from extproc.tokens.question import Question

_LONG = 65_536
"""Bytes of a long prompt."""


class Local:
    """Token ids by the tokenisers of a directory. Its methods block: they are for threads."""

    def __init__(self, directory: Directory, cache_bytes: int) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Held while a thread works on a long prompt: several would starve the event loop. They take turns,
        batch by batch; short prompts pass them."""
        self._known: Lru[bytes] = Lru(cache_bytes)
        self._claimed: dict[bytes, Future[bytes]] = {}
        """Pieces that some thread is encoding. Each thread encodes its own before it waits for others."""

    def prepare(self, tokenizer: str) -> None:
        """Read a tokeniser before it is needed; raises `NotHere`."""
        self._directory.model(tokenizer)

    def ids(self, question: Question) -> bytes:
        """The prompt's token ids; raises `Untellable` and `NotHere`."""
        model = self._directory.model(question.tokenizer)
        turn = self._turn if question.size() > _LONG else nullcontext()
        with turn:
            pieces = model.pieces(question)
        texts = list(dict.fromkeys(piece for piece in pieces if isinstance(piece, str)))
        ids = dict(zip(texts, self._encoded(model, texts, turn), strict=True))
        return b"".join(piece if isinstance(piece, bytes) else ids[piece] for piece in pieces)

    def _encoded(self, model: Model, texts: Sequence[str], turn: Turn) -> list[bytes]:
        keys = [model.identity + xxhash.xxh3_128_digest(text.encode()) for text in texts]
        ours: dict[bytes, str] = {}
        found: list[bytes | Future[bytes]] = []
        with self._lock:
            for key, text in zip(keys, texts, strict=True):
                ids = self._known.get(key)
                if ids is None and key not in self._claimed:
                    self._claimed[key] = Future()
                    ours[key] = text
                found.append(self._claimed[key] if ids is None else ids)
        if ours:
            self._encode(model, ours, turn)
        return [item if isinstance(item, bytes) else item.result() for item in found]

    def _encode(self, model: Model, claimed: dict[bytes, str], turn: Turn) -> None:
        """Fulfil our claims, or fail everyone who counts on them."""
        try:
            encoded = list(model.encode(list(claimed.values()), turn))
        except BaseException as error:  # a panic of the tokeniser is no Exception
            failure = RuntimeError(f"the tokenizer failed ({type(error).__name__})")
            with self._lock:
                futures = [self._claimed.pop(key) for key in claimed]
            for future in futures:
                future.set_exception(failure)
            return
        with self._lock:
            futures = [self._claimed.pop(key) for key in claimed]
            for key, ids in zip(claimed, encoded, strict=True):
                self._known.put(key, ids, len(ids))
        for future, ids in zip(futures, encoded, strict=True):
            future.set_result(ids)
