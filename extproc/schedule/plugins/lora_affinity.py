"""`lora-affinity`: only engines that can serve the LoRA adapter that is asked for."""

from typing import ClassVar

from extproc.schedule.plugin import Args, Refusal, Screen
from extproc.schedule.pool import Pool


class LoraAffinity(Screen):
    """Drops engines that do not list the adapter.

    An engine whose adapters are not known is dropped too while another one is known to have the adapter, and
    kept while none is: it may have it.
    """

    refusal: ClassVar[Refusal] = "no-adapter"

    def __init__(self, args: Args) -> None:
        """Takes no arguments."""

    def reasons(self, pool: Pool) -> list[str | None]:
        wanted = pool.prompt.adapter
        if wanted is None:
            return [None] * len(pool)
        known = [None if engine is None else engine.adapters for engine in pool.engines]
        unknown = None
        if any(adapters is not None and wanted in adapters for adapters in known):
            unknown = f"not known to have the adapter {wanted}, as another endpoint is"
        missing = f"does not have the adapter {wanted}"
        return [
            unknown if adapters is None else None if wanted in adapters else missing for adapters in known
        ]
