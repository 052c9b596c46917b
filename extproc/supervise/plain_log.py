"""The log of one process: plain lines, before which a supervisor puts the name of the process."""

import logging
import os

VARIABLE = "KVOY_LOG"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def plain_logging() -> None:
    """Log lines ``LEVEL area message`` to stderr; to be called once, when a process starts.

    ``KVOY_LOG`` is the least severe level that is shown, in any case: one of `LEVELS`, INFO if it is unset.
    Anything else is a warning, and INFO: a misspelt level must not keep a service from running.
    """
    wished = os.environ.get(VARIABLE) or "INFO"
    known = wished.upper() in LEVELS
    logging.basicConfig(
        level=wished.upper() if known else "INFO", format="%(levelname)s %(name)s %(message)s"
    )
    if not known:
        logging.getLogger("kvoy.log").warning(
            "%s=%r is no level, INFO is used; write one of %s", VARIABLE, wished, ", ".join(LEVELS)
        )
