"""The isolation canary: whose token is tried on whom, when, and what the answers prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.observed import Trial
from searchops.planning.names import short_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from searchops.api.observed import Tier


@dataclass(frozen=True, slots=True)
class Resident:
    """A tenant with a token, where it lives.

    Attributes:
        tenant: ``<namespace>.<name>``, as the gateway's path has it.
        secrets: names of its access Secrets, those that may only search first.
        tier: where its points stand now, whatever its spec wishes.
        collection: under which its live generation is known; of a shared tier no name of the database's.
    """

    namespace: str
    name: str
    uid: str
    cell: str
    alias: str
    secrets: tuple[str, ...]
    tier: Tier = "Collection"
    collection: str = ""

    @property
    def enforced_by_database(self) -> bool:
        """Whether its own token opens it at the database; that of a shared tier opens nothing there."""
        return self.tier == "Collection"

    @property
    def names_at_database(self) -> tuple[str, ...]:
        """What the database would give its points by; of a shared tier only a look at the cell tells."""
        return tuple(name for name in (self.alias, self.collection) if name) if self.enforced_by_database else ()

    @property
    def tenant(self) -> str:
        """How the gateway names it."""
        return f"{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class Visit:
    """One tenant's token is tried on another tenant of the same cell."""

    guest: Resident
    host: Resident


@dataclass(frozen=True, slots=True)
class Answers:
    """How the tries of one visit ended; `own` is the control: the same token on its own tenant.

    Attributes:
        own: a token that does not open its own tenant proves nothing by being refused elsewhere.
        cell: at the database; None where it was not tried.
        gateway: at the gateway; None where it was not tried.
    """

    own: Trial
    cell: Trial | None
    gateway: Trial | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a visit has proved: broken with a message, held, or (neither) nothing."""

    broken: str = ""
    held: bool = False


def round_of(resident: Resident, now: float, period: float) -> int:
    """Number of the tenant's current period; its periods begin at a moment of its own, by uid.

    Args:
        resident: the tenant.
        now: seconds since the epoch.
        period: seconds between two visits.
    """
    phase = int(short_hash(resident.uid, "canary", length=8), 16) / 0x1_0000_0000
    return int(now / period + phase)


def visits_due(
    residents: Iterable[Resident], last: dict[str, int], now: float, period: float, *, most: int
) -> tuple[Visit, ...]:
    """Whose turn it is, longest overdue first, `most` at once. A tenant alone on its cell has nobody to visit.

    Args:
        residents: every tenant with a token.
        last: by uid, the round in which a tenant was last seen to; a tenant that is new waits for its next round.
        now: seconds since the epoch.
        period: seconds between two visits of one tenant.
        most: bound of one turn, so that the cost stays even after a pause.
    """
    by_cell: dict[str, list[Resident]] = {}
    for resident in residents:
        by_cell.setdefault(resident.cell, []).append(resident)
    due: list[tuple[int, str, Visit]] = []
    for neighbours in by_cell.values():
        neighbours.sort(key=lambda item: item.uid)
        for place, guest in enumerate(neighbours):
            current = round_of(guest, now, period)
            before = last.setdefault(guest.uid, current)
            if len(neighbours) > 1 and current > before:
                due.append((before - current, guest.uid, Visit(guest, _host(neighbours, place, current))))
    return tuple(visit for _, _, visit in sorted(due, key=lambda item: item[:2])[:most])


def _host(neighbours: Sequence[Resident], place: int, current: int) -> Resident:
    """Another neighbour every time, so that in the end each token was tried on all."""
    step = 1 + current % (len(neighbours) - 1)
    return neighbours[(place + step) % len(neighbours)]


def of_all(trials: Sequence[Trial]) -> Trial:
    """One answer for several names: what opened one has opened the tenant, and only refusals of all are a refusal."""
    if Trial.OPENED in trials:
        return Trial.OPENED
    return Trial.REFUSED if trials and set(trials) == {Trial.REFUSED} else Trial.UNKNOWN


def judge(visit: Visit, answers: Answers) -> Judgement:
    """What the answers prove. Whatever was opened is a breach; only refusals of a living token prove that it held."""
    opened = [
        where
        for where, trial in (("its database", answers.cell), ("the gateway", answers.gateway))
        if trial is Trial.OPENED
    ]
    if opened:
        return Judgement(
            f"a token of {visit.guest.tenant} opened {visit.host.tenant} at {' and '.join(opened)} of cell "
            f"{visit.host.cell}; check that jwt_rbac is on and every key of the cell is secret; take the cell off the "
            "network until a token is refused again"
        )
    tried = [trial for trial in (answers.cell, answers.gateway) if trial is not None]
    held = bool(tried) and answers.own is Trial.OPENED and all(trial is Trial.REFUSED for trial in tried)
    return Judgement(held=held)
