"""How patiently a server is tried again that does not serve what it should: each on its own, with back-off, told.

What was tried lives in the model's status, so that a restarted operator is no less patient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from searchops.api.meta import format_time, parse_time
from searchops.api.v1alpha1.embedding_model import ServerTrouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModelStatus

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0
MAX_RELOADS = 5
"""Reloads of a revision whose vectors stay wrong on a server; then a person is asked."""
SLOW_AFTER = 3
"""Attempts after which nobody waits for a server within seconds."""
MESSAGE_LIMIT = 512

TroubleReason = Literal["NoAnswer", "Loading", "NotLoaded", "WrongVectors"]


@dataclass(frozen=True, slots=True)
class Patience:
    """What was tried before, per (server, revision).

    Attributes:
        acting: whether the actions of this pass are carried out; where not, nothing is due and nothing is counted.
    """

    now: datetime
    known: Mapping[tuple[str, str], ServerTrouble] = field(default_factory=dict)
    acting: bool = True

    def due(self, server: str, revision: str) -> bool:
        """Whether a load or reload may be tried in this pass."""
        known = self.known.get((server, revision))
        if not self.acting:
            return False
        return known is None or known.retry_at is None or parse_time(known.retry_at) <= self.now

    def exhausted(self, server: str, revision: str) -> bool:
        """Whether a reload was tried as often as it may help."""
        known = self.known.get((server, revision))
        return known is not None and known.attempts >= MAX_RELOADS

    def trouble(
        self, server: str, revision: str, reason: TroubleReason, message: str, *, tried: bool = False
    ) -> ServerTrouble:
        """The trouble as the status keeps it; `tried` says that this pass loads or reloads."""
        known = self.known.get((server, revision))
        attempts = (known.attempts if known is not None else 0) + tried
        retry_at = known.retry_at if known is not None else None
        if tried:
            wait = min(FIRST_RETRY_SECONDS * 2 ** (attempts - 1), LONGEST_RETRY_SECONDS)
            retry_at = format_time(self.now + timedelta(seconds=wait))
        if reason == "WrongVectors" and attempts >= MAX_RELOADS:
            retry_at = None
        return ServerTrouble(
            server=server[:256],
            revision=revision,
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            since=known.since if known is not None else format_time(self.now),
            attempts=attempts,
            retry_at=retry_at,
        )


def patience_of(status: EmbeddingModelStatus, now: datetime, *, acting: bool) -> Patience:
    """What the status says was tried."""
    failing = status.servers.failing if status.servers is not None else ()
    return Patience(now, {(item.server, item.revision): item for item in failing}, acting)


def told(trouble: ServerTrouble) -> str:
    """One trouble for people: what is seen, since when, what is tried and what is left to them."""
    text = f"{trouble.message}, {trouble.reason} since {trouble.since}"
    if trouble.reason == "WrongVectors" and trouble.attempts >= MAX_RELOADS:
        return f"{text}; reloaded {trouble.attempts} times in vain: restart or replace this server"
    if trouble.reason == "Loading":
        return f"{text}; where it stays so, restart this server"
    if trouble.attempts and trouble.retry_at is not None:
        return f"{text}; tried {trouble.attempts} times, again from {trouble.retry_at} on"
    return text


def hurried(troubles: Iterable[ServerTrouble]) -> bool:
    """Whether a server may be back within seconds; not where all have been tried for long."""
    return any(item.attempts < SLOW_AFTER for item in troubles)
