"""What stands in for a figure that is not known."""

from collections.abc import Sequence


def filled(values: Sequence[float | None], otherwise: float) -> list[float]:
    """The values, each unknown one as the mean of the known; `otherwise` if none is known.

    So missing data neither attracts requests to an engine nor keeps them away.
    """
    if None not in values:
        return list(values)  # type: ignore[arg-type]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else otherwise
    return [mean if value is None else value for value in values]
