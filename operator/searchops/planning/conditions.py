"""Building a status's conditions: transition times move only with the status, generations in the same write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from searchops.api.meta import Condition, format_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from enum import StrEnum

MAX_MESSAGE = 1024
Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition before it is stamped: what is wrong, the value seen, the value wanted, what to do."""

    type: str
    status: Truth
    reason: StrEnum
    message: str = ""


def yes(kind: str, reason: StrEnum, message: str = "") -> Finding:
    """A condition that holds."""
    return Finding(kind, "True", reason, message)


def no(kind: str, reason: StrEnum, message: str) -> Finding:
    """A condition that does not hold, with what to do."""
    return Finding(kind, "False", reason, message)


def unknown(kind: str, reason: StrEnum, message: str) -> Finding:
    """A condition that could not be established: never a success."""
    return Finding(kind, "Unknown", reason, message)


def stamp(
    findings: Iterable[Finding], previous: Iterable[Condition], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Findings as conditions, sorted by type; an unchanged status keeps its transition time."""
    before = {condition.type: condition for condition in previous}
    stamped = []
    for finding in sorted(findings, key=lambda item: item.type):
        old = before.get(finding.type)
        same = old is not None and old.status == finding.status
        stamped.append(
            Condition(
                type=finding.type,
                status=finding.status,
                reason=str(finding.reason),
                message=clip(finding.message),
                observed_generation=generation,
                last_transition_time=old.last_transition_time if same and old is not None else format_time(now),
            )
        )
    return tuple(stamped)


def clip(message: str) -> str:
    """A message within its bound; what was cut is said."""
    if len(message) <= MAX_MESSAGE:
        return message
    return message[: MAX_MESSAGE - 15] + "… (shortened)"


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of a type, or None."""
    return next((condition for condition in conditions if condition.type == kind), None)


def holds(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether the condition is there and True."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"
