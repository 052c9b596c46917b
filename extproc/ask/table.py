"""Columns that fit the terminal; pure."""

from collections.abc import Sequence

_GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, words: int = 1) -> list[str]:
    """Lines of equal columns below their header, at most `width` characters each.

    The first `words` columns are text, aligned to the left; the others are figures, aligned to the right.
    What is too long loses its end.
    """
    cells = [[plain(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [shortened(_line(row, widths, words), width) for row in cells]


def plain(text: str) -> str:
    """Text that cannot steer a terminal: names come from clients and manifests."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shortened(line: str, width: int) -> str:
    return line if len(line) <= width else line[: max(width - 1, 0)] + "…"


def _line(row: Sequence[str], widths: Sequence[int], words: int) -> str:
    aligned = [
        cell.ljust(width) if at < words else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return _GAP.join(aligned).rstrip()
