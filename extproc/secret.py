"""The secret that seeds every hash of a prompt, the same in all processes of the group.

Without it nobody can tell from what is stored, or from how requests are routed, which prompts are cached.
"""

import asyncio
import logging
from typing import Never

from extproc.state.store import Store, StoreError, backoff_s

log = logging.getLogger("kvoy.state")

_RENEW_S = 1.0
"""How often an emptied store is given the secret back."""
_LOOK_S = 0.05
"""How often a store without one is asked again."""


class Secret:
    """The secret, once the store has told it; the first configuration makes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._value: bytes | None = None
        self._known = asyncio.Event()

    @property
    def value(self) -> bytes:
        """Raises LookupError before `known`."""
        if self._value is None:
            raise LookupError("the store has not told the secret yet")
        return self._value

    async def known(self) -> bytes:
        """Wait for it."""
        await self._known.wait()
        return self.value

    async def run(self) -> Never:
        """Learn it, then see to it that the store keeps it; until cancelled."""
        failures = 0
        while True:
            try:
                await self._renew()
                failures = 0
            except StoreError as error:
                log.debug("the secret is neither learnt nor renewed: %s", error)
                failures += 1
            await asyncio.sleep(backoff_s(failures) or (_RENEW_S if self._value else _LOOK_S))

    async def _renew(self) -> None:
        before = self._value
        stored = await (self._store.secret.read() if before is None else self._store.secret.keep(before))
        if stored is None:
            return
        self._value = stored
        self._known.set()
        if before not in (None, stored):
            # Better to learn anew what is cached where than to disagree with everybody else for ever.
            log.warning("the store has another secret than before: what is cached where is learnt anew")
