"""Where a text may be cut so that its pieces, encoded one by one, give the tokens of the whole.

There are two kinds of seams. A special token stands for itself, whatever is around it. And a pre-tokeniser
that splits words by a regular expression does so between a letter and a space that a letter follows. Both are
only used where `Seams.of` knows the tokeniser's parts; `files` proves them on samples as well.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import msgspec

CHUNK = 4096
"""Characters after which a long piece is cut at the next seam. Counted from the start of a piece, so that a
text which grows at its end keeps its chunks."""

_SEAM = re.compile(r"[A-Za-z](?= [A-Za-z])")
"""Its end is between two words."""
_SPLITTERS = frozenset({"ByteLevel", "Digits", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"})
_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD"})


_LOOKS_BACK = "(?<"


class AddedToken(msgspec.Struct, frozen=True):
    """An entry of ``added_tokens``."""

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


class Parts(msgspec.Struct, frozen=True):
    """What a ``tokenizer.json`` says about the ways it takes a text apart."""

    added_tokens: list[AddedToken] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Seams:
    """The seams of one tokeniser."""

    marks: re.Pattern[str] | None
    """Matches each added token that is looked for before anything else is."""
    ids: Mapping[str, bytes]
    """Those of them that are a seam, with their id."""
    chunks: bool
    """Whether to cut between words."""

    @classmethod
    def of(cls, parts: Parts) -> "Seams":
        """What its parts allow."""
        marks = [token for token in parts.added_tokens if not token.normalized and token.content]
        ids = {token.content: token.id.to_bytes(4, "little") for token in marks if _stands_alone(token)}
        pattern = re.compile(_any_of({token.content for token in marks})) if ids else None
        return cls(pattern, ids, _splits_words(parts) and all(map(_stands_alone, parts.added_tokens)))

    def weaker(self) -> "Seams | None":
        """The next best: without the cuts between words, then without any; None after that."""
        if self.chunks:
            return replace(self, chunks=False)
        return NO_SEAMS if self.ids else None

    @staticmethod
    def between_words(text: str) -> Iterator[int]:
        """Where a text might be cut for its words."""
        return (seam.end() for seam in _SEAM.finditer(text))

    def split(self, text: str) -> Iterator[str | bytes]:
        """The pieces of a text in order; a special token comes as its id."""
        at = 0
        for mark in self.marks.finditer(text) if self.marks else ():
            token = self.ids.get(mark[0])
            if token is not None:
                yield from self._chunks(text[at : mark.start()])
                yield token
                at = mark.end()
        yield from self._chunks(text[at:])

    def _chunks(self, text: str) -> Iterator[str]:
        at = 0
        while self.chunks and len(text) - at > CHUNK and (seam := _SEAM.search(text, at + CHUNK)):
            yield text[at : seam.end()]
            at = seam.end()
        if at < len(text):
            yield text[at:]


NO_SEAMS = Seams(None, {}, False)
"""Every text stays whole."""


def _stands_alone(token: AddedToken) -> bool:
    """Whether it takes nothing of its neighbours, shows them no letter and has no seam inside."""
    plain = not (token.single_word or token.lstrip or token.rstrip)
    return plain and not re.search(r"^[\w\s]|[\w\s]$", token.content) and not _SEAM.search(token.content)


def _splits_words(parts: Parts) -> bool:
    steps = list(_steps(parts.pre_tokenizer, "pretokenizers"))
    regexes = [step["pattern"].get("Regex", _LOOKS_BACK) for step in steps if step["type"] == "Split"]
    by_regex = regexes or any(step["type"] == "ByteLevel" and step.get("use_regex", True) for step in steps)
    return (
        bool(by_regex)
        and all(step["type"] in _SPLITTERS for step in steps)
        and not any(_LOOKS_BACK in regex for regex in regexes)  # a piece must not look at the one before it
        and all(step["type"] in _NORMALIZERS for step in _steps(parts.normalizer, "normalizers"))
    )


def _steps(part: dict[str, Any] | None, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a part that may be a sequence of them."""
    if part is None:
        return
    if part.get("type") != "Sequence":
        yield part
    for step in part.get(inner, ()):
        yield from _steps(step, inner)


def _any_of(words: Iterable[str]) -> str:
    """A regular expression for the longest of the words: a tree by letters, so thousands are no slower."""
    branches = []
    ends = False
    for first, group in groupby(sorted(words), key=lambda word: word[:1]):
        if first:
            branches.append(re.escape(first) + _any_of(word[1:] for word in group))
        else:
            ends = True
    if not branches:
        return ""
    tree = branches[0] if len(branches) == 1 and not ends else f"(?:{'|'.join(branches)})"
    return f"{tree}?" if ends else tree
