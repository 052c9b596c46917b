"""A tokeniser's directory -> Model."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import msgspec
import tokenizers
import xxhash

from extproc.tokens.model import Model
from extproc.tokens.seams import CHUNK, NO_SEAMS, Parts, Seams
from extproc.tokens.template import Template

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
FILES = (TOKENIZER, CONFIG, TEMPLATE)
"""What a directory may hold; only the first is needed."""

_T = TypeVar("_T")


class Broken(Exception):
    """A file of a tokeniser's directory cannot be used. The text names the file and says why."""


class Named(msgspec.Struct, frozen=True):
    """One of several chat templates."""

    name: str
    template: str


class Config(msgspec.Struct, frozen=True):
    """What is used of a ``tokenizer_config.json``, beside the special tokens."""

    chat_template: str | list[Named] | None = None
    add_bos_token: bool | None = None
    """None leaves it to the post-processor of ``tokenizer.json``; so with `add_eos_token`."""
    add_eos_token: bool | None = None


def load(directory: Path, now: Callable[[], datetime]) -> Model:
    """Read it all; `now` tells templates the date. Raises `Broken`.

    Takes a tenth of a second for 50,000 tokens and more for more, which the tokeniser library spends without
    letting other threads run.
    """
    contents = {name: _read(directory / name) for name in FILES}
    config = _decoded(contents[CONFIG] or b"{}", Config, directory / CONFIG)
    special_tokens = _special_tokens(contents[CONFIG] or b"{}")
    parts = _decoded(contents[TOKENIZER], Parts, directory / TOKENIZER)
    try:
        tokenizer = _tokenizer(contents[TOKENIZER])
        seams = _proven(tokenizer, Seams.of(parts))
        opening, closing = _bracket(tokenizer, config, special_tokens)
    except BaseException as error:  # nothing more specific is raised, and a panic is no Exception
        raise Broken(f"{directory / TOKENIZER}: {error}") from None
    templates = _templates(directory, config, contents[TEMPLATE])
    compiled = {
        name: _compiled(file, source, special_tokens, now) for name, (file, source) in templates.items()
    }
    default = compiled.get("default")
    return Model(
        identity=xxhash.xxh3_128_digest(b"\0".join(contents.values())),
        tokenizer=tokenizer,
        seams=seams,
        opening=opening,
        closing=closing,
        template=default,
        tools_template=compiled.get("tool_use", default),
    )


def _read(file: Path) -> bytes:
    """Its content; empty where an optional one is absent."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        if file.name != TOKENIZER:
            return b""
        raise Broken(f"{file}: there is no such file") from None
    except OSError as error:
        raise Broken(f"{file}: {error.strerror}") from None


def _decoded(content: bytes, wanted: type[_T], file: Path) -> _T:
    try:
        return msgspec.json.decode(content, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Broken(f"{file}: {error}") from None


def _tokenizer(content: bytes) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _special_tokens(config: bytes) -> dict[str, str]:
    """``bos_token`` and the like: each a text, or an object that holds one."""
    found: dict[str, str] = {}
    for name, value in msgspec.json.decode(config, type=dict[str, Any]).items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _bracket(
    tokenizer: tokenizers.Tokenizer, config: Config, special_tokens: Mapping[str, str]
) -> tuple[bytes, bytes]:
    """The ids before and after every text for which special tokens are asked."""
    plain, bracketed = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    spare = len(bracketed) - len(plain)
    ahead = next((at for at in range(spare + 1) if bracketed[at : at + len(plain)] == plain), 0)
    opening, closing = bracketed[:ahead], bracketed[ahead + len(plain) :]
    if config.add_bos_token is not None:
        opening = _ids(tokenizer, special_tokens.get("bos_token")) if config.add_bos_token else []
    if config.add_eos_token is not None:
        closing = _ids(tokenizer, special_tokens.get("eos_token")) if config.add_eos_token else []
    return _packed(opening), _packed(closing)


def _ids(tokenizer: tokenizers.Tokenizer, token: str | None) -> list[int]:
    found = None if token is None else tokenizer.token_to_id(token)
    return [] if found is None else [found]


def _packed(ids: list[int]) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in ids)


def _templates(directory: Path, config: Config, own_file: bytes) -> dict[str, tuple[Path, str]]:
    """Each template's file and source, by name: a file of its own comes before the configuration."""
    if own_file:
        return {"default": (directory / TEMPLATE, own_file.decode(errors="replace"))}
    file, told = directory / CONFIG, config.chat_template
    if isinstance(told, str):
        return {"default": (file, told)}
    return {named.name: (file, named.template) for named in told or ()}


def _compiled(
    file: Path, source: str, special_tokens: Mapping[str, str], now: Callable[[], datetime]
) -> Template:
    try:
        return Template(source, special_tokens, now)
    except jinja2.TemplateSyntaxError as error:
        raise Broken(f"{file}: line {error.lineno} of the chat template: {error.message}") from None


_SAMPLES = (
    "The quick brown fox, number 12345, jumps; it's over there.",
    " a leading space,  two  spaces and a trailing one ",
    "\nlines\n\n\tindented\r\n",
    'snake_case(camelCase) == {"json": [1, 2.5]}',
    "Grüße, naïve café, e\u0301 Привет 你好世界 こんにちは 🙂🙃",
    "",
)


def _proven(tokenizer: tokenizers.Tokenizer, seams: Seams) -> Seams:
    """The most seams for which pieces of samples give the tokens of the whole samples."""
    marks = list(seams.ids)[:8]
    texts = [mark.join(_SAMPLES) for mark in ("", *marks)]
    texts += [mark + mark + sample + mark for mark in marks for sample in _SAMPLES]
    texts.append((" ".join(_SAMPLES) + " ") * (3 * CHUNK // len("".join(_SAMPLES))))
    tried: Seams | None = seams
    while tried is not None and not (
        _words_stay_apart(tokenizer, tried) and all(_agrees(tokenizer, tried, text) for text in texts)
    ):
        tried = tried.weaker()
    return tried or NO_SEAMS


def _words_stay_apart(tokenizer: tokenizers.Tokenizer, seams: Seams) -> bool:
    """Whether the pre-tokeniser cuts wherever `seams` would."""
    if not seams.chunks:
        return True
    splitter = tokenizer.pre_tokenizer
    text = _SAMPLES[0]
    starts = {start for _, (start, _) in splitter.pre_tokenize_str(text)} if splitter else set()
    return starts.issuperset(seams.between_words(text))


def _agrees(tokenizer: tokenizers.Tokenizer, seams: Seams, text: str) -> bool:
    pieces = (
        piece if isinstance(piece, bytes) else _packed(tokenizer.encode(piece, add_special_tokens=False).ids)
        for piece in seams.split(text)
    )
    return b"".join(pieces) == _packed(tokenizer.encode(text, add_special_tokens=False).ids)
