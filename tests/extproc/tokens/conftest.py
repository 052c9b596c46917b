import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from extproc.tokens.question import Parts, Question

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "the quick brown fox jumps over the lazy dog while a user and an assistant talk about New York, "
    "def return import self.value = 12345 it's they'll größe naïve 你好 привет \n\n\t system"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def _byte_level(first: pre_tokenizers.PreTokenizer | None = None) -> Tokenizer:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=first is None)
    return _trained(pre_tokenizers.Sequence([first, last]) if first else last)


def _trained(
    pre: pre_tokenizers.PreTokenizer | None,
    normalizer: normalizers.Normalizer | None = None,
    text: str = WORDS,
) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<|endoftext|>"))
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = sorted({*pre_tokenizers.ByteLevel.alphabet(), *"▁ \n\t", *WORDS})
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    return tokenizer


def _with(tokenizer: Tokenizer, *tokens: AddedToken) -> Tokenizer:
    tokenizer.add_special_tokens([token for token in tokens if token.special])
    tokenizer.add_tokens([token for token in tokens if not token.special])
    return tokenizer


def _with_bos(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "llama 3": lambda: _byte_level(pre_tokenizers.Split(Regex(LLAMA3), "isolated")),
    "gpt 2": _byte_level,
    "gpt 2, normalised": lambda: _trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()
    ),
    "gpt 2, with a prefix space": lambda: _trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace, first": lambda: _trained(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "metaspace, always": lambda: _trained(pre_tokenizers.Metaspace(prepend_scheme="always")),
    "llama 2": lambda: _trained(
        None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    ),
    "gemma": lambda: _trained(
        pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁")
    ),
    "stripping": lambda: _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Strip()),
    "eats spaces": lambda: _with(
        _byte_level(), AddedToken("<|end|>", special=True, rstrip=True, lstrip=True)
    ),
    "single words": lambda: _with(_byte_level(), AddedToken("fox", single_word=True, normalized=False)),
    "two words": lambda: _with(_byte_level(), AddedToken("New York", normalized=True)),
    "tokens in tokens": lambda: _with(
        _byte_level(), AddedToken("<|im_end|>X", normalized=False), AddedToken("<|im", normalized=False)
    ),
    "looking back": lambda: _byte_level(
        pre_tokenizers.Split(Regex(r"(?<=x) \w+| ?\w+|\s+|[^\w\s]+"), "isolated")
    ),
    "sentences": lambda: _trained(
        pre_tokenizers.Split(Regex(r"[^.]+|\."), "isolated"), text="dogs jumped over dogs jumped over"
    ),
    "with bos": lambda: _with_bos(_byte_level()),
}


@pytest.fixture(scope="session")
def kinds() -> Callable[[str], Tokenizer]:
    """Tokenisers that take texts apart in different ways, by name."""
    made: dict[str, Tokenizer] = {}

    def get(kind: str) -> Tokenizer:
        return made.setdefault(kind, KINDS[kind]()) if kind not in made else made[kind]

    return get


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, kinds: Callable[[str], Tokenizer]) -> Write:
    """Writes a tokeniser's directory, below a directory of them which it returns."""

    def to(
        name: str = "tiny", kind: str = "llama 3", template: str | None = CHATML, **config: object
    ) -> Path:
        directory = tmp_path / "tokenizers" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.json").write_text(kinds(kind).to_str())
        if config:
            (directory / "tokenizer_config.json").write_text(json.dumps(config))
        if template is not None:
            (directory / "chat_template.jinja").write_text(template)
        return tmp_path / "tokenizers"

    return to


@pytest.fixture
def chat() -> Callable[..., Question]:
    """A question about a chat request with these fields."""

    def ask(
        *contents: str, tokenizer: str = "tiny", engines: tuple[str, ...] = (), **fields: object
    ) -> Question:
        messages = [
            {"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(contents)
        ]
        body = json.dumps({"messages": messages} | fields).encode()
        return Question("chat", Parts.of(body), "tiny", tokenizer, engines)

    return ask


@pytest.fixture
def completion() -> Callable[..., Question]:
    """A question about a completion request with this prompt."""

    def ask(
        prompt: object, tokenizer: str = "tiny", engines: tuple[str, ...] = (), **fields: object
    ) -> Question:
        body = json.dumps({"prompt": prompt} | fields).encode()
        return Question("completion", Parts.of(body), "tiny", tokenizer, engines)

    return ask


@pytest.fixture
def noon() -> Callable[[], datetime]:
    return lambda: datetime(2026, 3, 9, 12)


@pytest.fixture
def unpacked() -> Callable[[bytes], list[int]]:
    return lambda ids: memoryview(ids).cast("I").tolist()
