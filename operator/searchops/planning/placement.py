"""Which cell a tenant goes to: sticky, never overfilled, ties to the emptiest and then by hash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.planning.capabilities import lacking
from searchops.planning.names import short_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.meta import LabelSelector
    from searchops.api.observed import CellRegistration, CellState
    from searchops.api.room import CellHold

USABLE_SHARE = 0.8
PROCESS_LIMIT_PERCENT = 70
"""Of memory maps and of open files, each, on the cell's fullest node: where placement ends."""
PROCESS_LIMIT_FOR_REBUILDS = 85
"""What placement leaves free is for second generations, which go again; a node ends at 100 %."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The cell that was chosen or found."""

    cell: str


@dataclass(frozen=True, slots=True)
class NotPlaced:
    """Why no cell was chosen; `waiting` says that an unanswered cell stands in the way."""

    message: str
    waiting: bool = False
    no_match: bool = False


def usable(cell: CellState) -> int:
    """Collections that may stand on a cell: 80 % of its cap, the rest is room for second generations."""
    return usable_of(cell.registration)


def usable_of(cell: CellRegistration) -> int:
    """The same of a cell that nobody has read."""
    return int(cell.max_collections * USABLE_SHARE)


def place(
    selector: LabelSelector,
    cells: Sequence[CellState],
    *,
    alias: str,
    grants: Mapping[str, int],
    identity_ok: Mapping[str, bool],
    holders: Sequence[str] = (),
    holds: Mapping[str, CellHold] | None = None,
) -> Placed | NotPlaced:
    """Choose a cell for a tenant that has neither annotation nor status.

    An alias of our name in any cell *is* the tenant's cell (a restore, a cluster move), and so is a cell that holds
    data which the tenant may take back. While a matching cell has not answered nothing is placed: either may be there.

    Args:
        selector: which cells are allowed.
        cells: every registered cell as it answered.
        alias: the tenant's public name.
        grants: placements per cell that no read shows yet.
        identity_ok: whether the cell's identity is ours (or unclaimed).
        holders: cells with data of the tenant that no alias shows, best first.
        holds: cells that are out of disk or memory: nothing new goes there.
    """
    cells = sorted(cells, key=lambda cell: cell.name)
    owners = [cell.name for cell in cells if cell.reachable and alias in cell.aliases]
    if owners:
        return Placed(owners[0])
    if holders:
        return Placed(holders[0])
    matching = [cell for cell in cells if selector.matches(dict(cell.registration.labels))]
    if not matching:
        return NotPlaced(
            f"spec.placement.cellSelector {selector.to_wire()} matches none of the {len(cells)} cells "
            f"({', '.join(cell.name for cell in cells) or 'none'}); label a cell's Secret or change it",
            no_match=True,
        )
    silent = [cell for cell in matching if not cell.reachable]
    if silent:
        return NotPlaced(
            f"cell {silent[0].name} has not answered ({silent[0].error}); nothing is placed until it does, because "
            f"the alias {alias} may be there",
            waiting=True,
        )
    full = holds or {}
    fitting = [
        cell
        for cell in matching
        if _fits(cell, grants.get(cell.name, 0), identity_ok.get(cell.name, False)) and cell.name not in full
    ]
    if not fitting:
        numbers = "; ".join(
            _numbers(cell, grants.get(cell.name, 0), identity_ok.get(cell.name, False), full.get(cell.name))
            for cell in matching
        )
        return NotPlaced(f"no matching cell has room: {numbers}; add a cell or raise maxCollections in its Secret")
    best = min(
        fitting, key=lambda cell: (_load(cell, grants.get(cell.name, 0)), short_hash(alias, cell.name, length=8))
    )
    return Placed(best.name)


def process_fits(cell: CellState, limit: int) -> bool:
    """Whether memory maps and open files of the cell's fullest node are below this percentage, as far as is known."""
    return all(found is None or found < limit for found in (cell.maps_percent, cell.files_percent))


def _load(cell: CellState, granted: int) -> float:
    return (cell.held + granted) / max(1, usable(cell))


def _fits(cell: CellState, granted: int, identity_ok: bool) -> bool:
    roomy = cell.held + granted < usable(cell)
    below = process_fits(cell, PROCESS_LIMIT_PERCENT)
    open_to_new = not cell.registration.draining and not lacking(cell.version)
    return roomy and below and identity_ok and open_to_new and cell.registration.key_is_strong


def _numbers(cell: CellState, granted: int, identity_ok: bool, hold: CellHold | None) -> str:
    text = f"{cell.name} holds {cell.held} + {granted} granted of {usable(cell)} usable collections"
    for what, percent in (("memory maps", cell.maps_percent), ("open files", cell.files_percent)):
        if percent is not None and percent >= PROCESS_LIMIT_PERCENT:
            text += f", {what} at {percent} % (limit {PROCESS_LIMIT_PERCENT} %)"
    if cell.registration.draining:
        text += ", and is drained (searchops.dev/drain on its Secret)"
    if lack := lacking(cell.version):
        text += f", and its {lack}"
    if not identity_ok:
        text += ", and belongs to another fleet or cluster"
    if not cell.registration.key_is_strong:
        text += ", and its apiKey is shorter than 32 bytes"
    if hold is not None:
        text += f", and is out of disk or memory since {hold.since}"
    return text
