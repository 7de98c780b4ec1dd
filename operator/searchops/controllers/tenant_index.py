"""What the passes over many tenants share of a cell's survey, kept so that a burst does not cost its square.

A survey is one object for every pass that it is shared by. What follows from it is worked out once for each, by set
operations against what was known before, and is then a look-up for each tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchops.planning.names import alias_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from searchops.api.observed import CellState
    from searchops.runtime.key import Key


class Grants:
    """Placements of this process that no read of a cell shows yet."""

    def __init__(self) -> None:
        self._granted: dict[Key, tuple[str, str]] = {}
        self._waiting: dict[str, dict[str, Key]] = {}
        self._seen: dict[str, Mapping[str, str]] = {}

    def add(self, key: Key, alias: str, cell: str) -> None:
        """Count a placement until a read of the cell shows its alias."""
        self.forget(key)
        self._granted[key] = cell, alias
        self._waiting.setdefault(cell, {})[alias] = key
        self._seen.pop(cell, None)

    def forget(self, key: Key) -> None:
        """The tenant is gone, or placed anew."""
        granted = self._granted.pop(key, None)
        if granted is not None:
            cell, alias = granted
            del self._waiting[cell][alias]

    def counted(self, own: Key, states: Iterable[CellState]) -> dict[str, int]:
        """Grants of each cell but for one's own, once those that a survey shows are let go."""
        for state in states:
            if self._seen.get(state.name) is state.aliases:
                continue
            self._seen[state.name] = state.aliases
            waiting = self._waiting.get(state.name, {})
            for alias in waiting.keys() & state.aliases.keys():
                del self._granted[waiting.pop(alias)]
        counts = {cell: len(waiting) for cell, waiting in self._waiting.items() if waiting}
        if own in self._granted:
            counts[self._granted[own][0]] -= 1
        return counts


class Generations:
    """Names of collections by the alias that they are generations of."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._by_alias: dict[str, dict[str, list[str]]] = {}

    def of(self, state: CellState, alias: str) -> Sequence[str]:
        """Every generation of this alias on the cell, in order."""
        known = self._names.get(state.name, frozenset())
        if known is not state.collections:
            self._learn(state, known)
        return sorted(self._by_alias.get(state.name, {}).get(alias, ()))

    def _learn(self, state: CellState, known: frozenset[str]) -> None:
        index = self._by_alias.setdefault(state.name, {})
        for name in known - state.collections:
            alias = alias_of(name)
            if alias is not None and name in index.get(alias, ()):
                index[alias].remove(name)
                if not index[alias]:
                    del index[alias]
        for name in state.collections - known:
            alias = alias_of(name)
            if alias is not None:
                index.setdefault(alias, []).append(name)
        self._names[state.name] = state.collections
