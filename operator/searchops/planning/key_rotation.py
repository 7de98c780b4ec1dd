"""Rotation of a cell's key without one refused request, as a pure function of what was read.

The order is: the new key is the servers' ``alt_api_key`` and the cell Secret's ``altApiKey``; every node is seen to
accept it; every tenant's token is signed anew; a person swaps the two on the servers and in the Secret; the old key
goes once nothing that it signed can be valid any more. The operator changes no server: it says what may be done now.

Which of two keys is the new one cannot be seen from the Secret after the swap, so a record keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from searchops.api.meta import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


MOST_NAMED = 5
"""Tenants named in a message; the others are counted."""


class RotationPhase(StrEnum):
    """How far a cell's rotation has come; the values are a metric's labels."""

    IDLE = "Idle"
    UNDECIDED = "Undecided"
    REFUSED = "Refused"
    SPREADING = "Spreading"
    RESIGNING = "Resigning"
    READY_TO_SWAP = "ReadyToSwap"
    DRAINING = "Draining"
    READY_TO_DROP = "ReadyToDrop"


class RotationRecord(BaseModel):
    """What must survive a restart; keys by their ids, never themselves.

    Attributes:
        signing: the key that signs tokens.
        previous: the key that signed before; tokens of it may be out there.
        since: from when nothing is signed with `previous` any more: the moment the swap was seen.
        taken_back: `previous` was the new key, and was taken out of the Secret before any swap.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    signing: str = Field(pattern=r"^[0-9a-f]{16}$")
    previous: str | None = Field(default=None, pattern=r"^[0-9a-f]{16}$")
    since: str | None = None
    taken_back: bool = False


@dataclass(frozen=True, slots=True)
class RotationFacts:
    """What one look at a cell's keys has shown.

    Attributes:
        primary: id of the Secret's ``apiKey``.
        alternative: id of its ``altApiKey``, where there is one.
        alternative_strong: whether that one has 32 bytes or more.
        record: what was kept; None where nothing was, or it cannot be read.
        nodes: by address, whether the node accepts the alternative key; None where it did not say.
        tokens: how many tenants' Secrets hold a token of each key, as this process has seen them.
        unseen: tenants of the cell whose Secrets this process has not read yet.
        holders: names of the tenants that hold a token of a key, by the key's id.
        unread: names of the unseen ones.
    """

    cell: str
    primary: str
    alternative: str | None
    alternative_strong: bool
    record: RotationRecord | None
    nodes: Mapping[str, bool | None]
    tokens: Mapping[str, int]
    unseen: int
    holders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What is signed with, what is kept, and what people are told.

    Attributes:
        signing: id of the key that signs from now on; None: leave every token as it is.
        record: what is to be kept; None: nothing is known that could be.
        message: where it stands, with numbers, and what to do next.
        resigned: tokens of the signing key.
        total: tokens in all, as far as they were seen.
    """

    signing: str | None
    record: RotationRecord | None
    phase: RotationPhase
    message: str
    resigned: int = 0
    total: int = 0


def plan_rotation(facts: RotationFacts, now: datetime, lifetime: timedelta) -> RotationPlan:
    """Where a cell's rotation stands.

    Args:
        facts: what was read.
        now: the moment of it.
        lifetime: how long a token is valid.
    """
    record = facts.record
    if record is None:
        if facts.alternative is None:
            return _idle(facts)
        record = _guessed(facts)
        if record is None:
            message = (
                "the cell's Secret has two keys and there is no record of which is new; every token is left as it is "
                f"({facts.unseen} tenants' Secrets not read yet); if this lasts, leave in the Secret only the key that "
                "signs now, and add the other again as altApiKey"
            )
            return _plan(facts, None, None, RotationPhase.UNDECIDED, message)
    if record.signing not in (facts.primary, facts.alternative):
        back = record.previous == facts.primary
        since = format_time(now)
        record = RotationRecord(signing=facts.primary, previous=record.signing, since=since, taken_back=back)
    if record.signing == facts.primary:
        return _signed_with_primary(facts, record, now, lifetime)
    return _signed_with_alternative(facts, record)


def _guessed(facts: RotationFacts) -> RotationRecord | None:
    """A lost record, from the tokens themselves: only where every one was seen and they leave no doubt.

    All of ``apiKey`` is no proof: so it looks before a rotation, and after the swap of one.
    """
    if facts.unseen:
        return None
    seen = {key for key, count in facts.tokens.items() if count}
    if not seen:
        return RotationRecord(signing=facts.primary)
    if facts.alternative is not None and seen == {facts.alternative}:
        return RotationRecord(signing=facts.alternative, previous=facts.primary)
    return None


def _idle(facts: RotationFacts, message: str = "one key, nothing to do") -> RotationPlan:
    """Kept too: without a record the start of the next rotation looks like the end of a lost one."""
    return _plan(facts, facts.primary, RotationRecord(signing=facts.primary), RotationPhase.IDLE, message)


def _signed_with_primary(
    facts: RotationFacts, record: RotationRecord, now: datetime, lifetime: timedelta
) -> RotationPlan:
    fresh = facts.alternative is not None and facts.alternative != record.previous
    if fresh:
        return _spreading(facts, record)
    if record.previous is None:
        return _idle(facts)
    if record.since is None:
        record = record.model_copy(update={"since": format_time(now)})
    left = _unsigned(facts)
    if left:
        message = f"{_taken_back(record)}{left}; the servers must go on accepting {_other(record)} as alt_api_key"
        return _plan(facts, facts.primary, record, RotationPhase.RESIGNING, message)
    until = _since(record, now) + lifetime
    if now < until:
        message = (
            f"{_taken_back(record) or 'swapped; '}tokens that {_other(record)} signed end by {format_time(until)}; "
            "until then the servers must go on accepting it as alt_api_key: clients may not have read their Secret anew"
        )
        return _plan(facts, facts.primary, record, RotationPhase.DRAINING, message)
    if facts.alternative is None:
        return _idle(facts, f"no token of {_other(record)} is valid any more; remove alt_api_key from the servers")
    message = (
        "no token of the old key is valid any more: remove altApiKey from the cell's Secret, and alt_api_key from the "
        "servers"
    )
    return _plan(facts, facts.primary, record, RotationPhase.READY_TO_DROP, message)


def _spreading(facts: RotationFacts, record: RotationRecord) -> RotationPlan:
    """A new key: nothing is signed with it before every node was seen to accept it."""
    assert facts.alternative is not None  # noqa: S101 - the caller's case
    if not facts.alternative_strong:
        message = "altApiKey is shorter than 32 bytes: every tenant would hold a MAC of it; set a longer one"
        return _plan(facts, facts.primary, record, RotationPhase.REFUSED, message)
    accepting = [url for url, answer in facts.nodes.items() if answer is True]
    refusing = sorted(url for url, answer in facts.nodes.items() if answer is False)
    silent = sorted(url for url, answer in facts.nodes.items() if answer is None)
    if not facts.nodes or refusing or silent:
        message = (
            f"{len(accepting)} of {len(facts.nodes)} nodes accept the new key; refusing: {', '.join(refusing) or '-'}; "
            f"no answer: {', '.join(silent) or '-'}; set it as alt_api_key there and restart them; tokens go on being "
            f"signed with apiKey{_of_alternative(facts)}"
        )
        return _plan(facts, facts.primary, record, RotationPhase.SPREADING, message)
    record = RotationRecord(signing=facts.alternative, previous=facts.primary)
    return _signed_with_alternative(facts, record)


def _signed_with_alternative(facts: RotationFacts, record: RotationRecord) -> RotationPlan:
    """Tokens are of the new key; a node that refuses it takes everything back, since both verify everywhere else."""
    assert facts.alternative is not None  # noqa: S101 - the record names it
    refusing = sorted(url for url, answer in facts.nodes.items() if answer is False)
    if refusing:
        back = RotationRecord(signing=facts.primary)
        message = (
            f"{', '.join(refusing)} refuses the new key now: tokens are signed with apiKey again; set alt_api_key "
            f"there and restart it{_of_alternative(facts)}"
        )
        return _plan(facts, facts.primary, back, RotationPhase.SPREADING, message)
    record = record.model_copy(update={"previous": facts.primary, "since": None})
    left = _unsigned(facts, facts.alternative)
    if left:
        return _plan(facts, facts.alternative, record, RotationPhase.RESIGNING, f"{left}; change no key meanwhile")
    message = (
        "every token is of the new key: set it as api_key and the old one as alt_api_key on every server, and swap "
        "apiKey and altApiKey in the cell's Secret"
    )
    return _plan(facts, facts.alternative, record, RotationPhase.READY_TO_SWAP, message)


def _unsigned(facts: RotationFacts, signing: str | None = None) -> str:
    """Whose tokens are still to be signed anew, for people; empty where none."""
    key = signing or facts.primary
    others = sum(count for other, count in facts.tokens.items() if other != key)
    if not others and not facts.unseen:
        return ""
    total = sum(facts.tokens.values())
    unseen = f", {facts.unseen} tenants' Secrets not read yet" if facts.unseen else ""
    of_key = "apiKey" if signing is None else "the new key"
    return f"{facts.tokens.get(key, 0)} of {total} tokens are of {of_key}{unseen}{_held_up(facts, key)}"


def _held_up(facts: RotationFacts, signing: str) -> str:
    """Whose tokens are waited for, by name: `searchops explain` says why of each."""
    others = (name for key, names in facts.holders.items() if key != signing for name in names)
    waited = sorted({*others, *facts.unread})
    if not waited:
        return ""
    more = len(waited) - MOST_NAMED
    return f"; waiting for {', '.join(waited[:MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _taken_back(record: RotationRecord) -> str:
    """Said of a rotation that a person has given up halfway; empty of any other."""
    if not record.taken_back:
        return ""
    return "altApiKey was taken out of the Secret before the swap, so the new key is given up; "


def _other(record: RotationRecord) -> str:
    return "the key that was given up" if record.taken_back else "the old key"


def _of_alternative(facts: RotationFacts) -> str:
    """What is left of a key that had signed already and does not sign any more."""
    left = facts.tokens.get(facts.alternative or "", 0)
    if not left:
        return ""
    return (
        f"; {left} tokens of the new key are out and are being signed with apiKey again{_held_up(facts, facts.primary)}"
    )


def _since(record: RotationRecord, now: datetime) -> datetime:
    try:
        return parse_time(record.since or "")
    except ValueError:
        return now


def _plan(
    facts: RotationFacts, signing: str | None, record: RotationRecord | None, phase: RotationPhase, message: str
) -> RotationPlan:
    plan = RotationPlan(signing, record, phase, message)
    if signing is None:
        return plan
    return replace(plan, resigned=facts.tokens.get(signing, 0), total=sum(facts.tokens.values()))
