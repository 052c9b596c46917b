"""Pure: (records, publication) -> records, or a gap."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from extproc.state.records import Delete, Publication, Put, Record


class Gap(Exception):
    """A publication does not continue the records held; only a whole load can."""


@dataclass(frozen=True, slots=True)
class Records:
    """Every record of one generation, by record key."""

    epoch: str = ""
    generation: int = 0
    by_key: Mapping[str, Record] = field(default_factory=dict)


def fold(records: Records, publication: Publication) -> Records:
    """The records after a publication; unchanged by one that they already contain.

    Raises `Gap` when a publication in between is missing.
    """
    if publication.epoch == records.epoch and publication.generation <= records.generation:
        return records
    if not publication.whole and (publication.epoch, publication.generation) != (
        records.epoch,
        records.generation + 1,
    ):
        raise Gap(
            f"generation {publication.generation} of epoch {publication.epoch} does not continue "
            f"generation {records.generation} of epoch {records.epoch or '(none)'}"
        )
    by_key = {} if publication.whole else dict(records.by_key)
    for change in publication.changes:
        match change:
            case Put(record):
                by_key[record.key] = record
            case Delete(key):
                by_key.pop(key, None)
    return Records(publication.epoch, publication.generation, by_key)
