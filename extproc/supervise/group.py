"""Deployment groups: several kvoys that share a Redis and nothing else."""

import re

_GROUP = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,62}")


def check_group(text: str) -> None:
    """Raises ValueError if `text` cannot be a part of every key: a brace would end its hash tag."""
    if not _GROUP.fullmatch(text):
        raise ValueError(
            f"{text!r} is no group: write at most 63 letters, digits, '-', '.' and '_', "
            "the first a letter or a digit"
        )
