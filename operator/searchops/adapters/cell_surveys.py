"""What surveys have shown of each cell, kept for a moment and carried on by what this process writes itself.

Forgetting a survey at every write made a burst of creates read the whole cell again for each tenant. A write whose
effect is proved is laid over the survey instead; one whose effect is open makes it forgotten, as nothing may rest on
it. Either way a kept survey is read anew after its second, so that what others write is seen as soon as before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searchops.api.observed import CellIdentity, CellState


@dataclass(frozen=True, slots=True)
class Effect:
    """What a write of ours did to the names on a cell.

    Attributes:
        made: a collection that is there now.
        dropped: a collection that is gone, and with it every alias that pointed to it.
        alias: an alias, and the collection that it points to now; None where it is gone.
        identity: what the cell says it is.
    """

    made: str | None = None
    dropped: str | None = None
    alias: tuple[str, str | None] | None = None
    identity: CellIdentity | None = None

    def over(self, state: CellState) -> CellState:
        """The survey as it would be if it were read now; the same object where nothing differs."""
        collections, aliases = state.collections, state.aliases
        if self.made is not None and self.made not in collections:
            collections = collections | {self.made}
        if self.dropped is not None:
            gone = self.dropped
            collections = collections - {gone} if gone in collections else collections
            if gone in aliases.values():
                aliases = {alias: name for alias, name in aliases.items() if name != gone}
        if self.alias is not None:
            alias, target = self.alias
            if target is None and alias in aliases:
                aliases = {name: at for name, at in aliases.items() if name != alias}
            elif target is not None and aliases.get(alias) != target:
                aliases = {**aliases, alias: target}
        identity = self.identity or state.identity
        if collections is state.collections and aliases is state.aliases and identity == state.identity:
            return state
        return replace(state, collections=collections, aliases=aliases, identity=identity)


NOTHING = Effect()
"""A write that changes no name: metadata, an index, a vector."""


@dataclass(slots=True)
class Reading:
    """A survey under way: what was written meanwhile, and whether that left something open."""

    effects: list[Effect] = field(default_factory=list)
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A survey, when it was read (monotonic seconds), and from which node."""

    state: CellState
    at: float
    node: int


class Surveys:
    """Surveys by cell."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._readings: dict[str, list[Reading]] = {}

    def get(self, cell: str) -> Kept | None:
        """The survey that is kept, however old it is."""
        return self._kept.get(cell)

    def begin(self, cell: str) -> Reading:
        """A survey is about to be read; it has to be ended by `end`."""
        reading = Reading()
        self._readings.setdefault(cell, []).append(reading)
        return reading

    def end(self, cell: str, reading: Reading) -> None:
        """The survey was read, or failed: later writes do not concern it."""
        under_way = [one for one in self._readings[cell] if one is not reading]
        if under_way:
            self._readings[cell] = under_way
        else:
            del self._readings[cell]

    def keep(self, reading: Reading, state: CellState, *, at: float, node: int) -> CellState:
        """Keep what was read, with what was written meanwhile; nothing where a write left its effect open.

        Returns:
            What the caller may go by.
        """
        if state.reachable:
            for effect in reading.effects:
                state = effect.over(state)
        if not reading.doubtful:
            self._kept[state.name] = Kept(state, at, node)
        return state

    def wrote(self, cell: str, effect: Effect) -> None:
        """A write of ours took effect."""
        for reading in self._readings.get(cell, ()):
            reading.effects.append(effect)
        kept = self._kept.get(cell)
        if kept is not None and kept.state.reachable:
            self._kept[cell] = replace(kept, state=effect.over(kept.state))

    def doubt(self, cell: str) -> None:
        """A write of ours may have taken effect or not: nothing that was surveyed before is shown any more."""
        self._kept.pop(cell, None)
        for reading in self._readings.get(cell, ()):
            reading.doubtful = True
