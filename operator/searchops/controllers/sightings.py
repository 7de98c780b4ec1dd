"""For how long this process has seen what another may have written: a wait that no other clock enters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.planning.binding_state import read_bindings
from searchops.planning.names import KEY_PENDING, KEY_RELEASED_AT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.api.observed import CollectionState
    from searchops.runtime.key import Key


class Sightings:
    """When each tenant's `pending` and ``released-at`` were first seen as they are.

    What is written is seen at the pass that follows, so a wait that counts from there is never short; a new process
    waits once more.

    Args:
        now: seconds of a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._first: dict[Key, dict[str, tuple[str, float]]] = {}

    def of(self, tenant: Key, live: CollectionState) -> Mapping[str, float]:
        """Seconds by metadata key, for what is there."""
        state, now = read_bindings(live), self._now()
        pending = state.pending if state is not None else None
        texts = {
            KEY_RELEASED_AT: live.metadata.get(KEY_RELEASED_AT),
            KEY_PENDING: pending.since if pending is not None else None,
        }
        before = self._first.get(tenant, {})
        there = {key: text for key, text in texts.items() if text is not None}
        seen = {key: before[key] if before.get(key, ("",))[0] == text else (text, now) for key, text in there.items()}
        if seen:
            self._first[tenant] = seen
        else:
            self._first.pop(tenant, None)
        return {key: now - at for key, (_, at) in seen.items()}

    def forget(self, tenant: Key) -> None:
        """It is gone."""
        self._first.pop(tenant, None)
