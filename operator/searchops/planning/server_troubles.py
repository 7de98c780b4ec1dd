"""How patiently a server is tried again that does not serve what it should: each on its own, with back-off, told.

What was tried lives in the model's status, so that a restarted operator is no less patient.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from searchops.api.meta import format_time, parse_time
from searchops.api.v1alpha1.embedding_model_status import ServerTrouble
from searchops.planning.conditions import MAX_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0
MAX_RELOADS = 5
"""Reloads of a revision whose vectors stay wrong on a server; then a person is asked."""
MOST_DOUBLINGS = 62
"""Beyond them the wait is at its bound anyway, and in the end no float holds the power."""
HURRIED_SECONDS = 60.0
"""How long a server may be expected back within seconds."""
MESSAGE_LIMIT = 512

TroubleReason = Literal["NoAnswer", "Loading", "NotLoaded", "WrongVectors"]
_SAME = {"Loading": "NotLoaded"}
"""A load under way is part of the trouble that asked for it: between two failed loads each server is Loading."""
_NEXT = {
    "NoAnswer": "restart it, or take it out of its pool's Secret where it is gone for good",
    "Loading": "where it stays so, restart this server",
    "WrongVectors": "it counts for no promotion; where reloads do not mend it, restart or replace this server",
    "NotLoaded": "where it stays so, put right what it names, in the pool's repository or on this server",
}
_CAUSES = (
    ("refused", re.compile(r"(?i)connection refused|\brefused\b")),
    ("its name does not resolve", re.compile(r"(?i)\bdns\b|name resolution|getaddrinfo|name or service not known")),
    ("no route", re.compile(r"(?i)no route to host|unreachable")),
    ("the TLS handshake failed", re.compile(r"(?i)handshake|certificate|\bssl\b")),
    ("it closed the connection", re.compile(r"(?i)connection reset|socket closed|broken pipe|goaway")),
    ("timed out", re.compile(r"(?i)timed[ -]?out|time-?out|deadline[ _]exceeded")),
)
_VOLATILE = (
    re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"),
    re.compile(r"\b0x[0-9a-fA-F]+"),
    re.compile(r"\bipv[46]:[^\s,;]+"),
    re.compile(r"(?<![\w.-])\d+(\.\d+)?\s?(ns|us|µs|ms|s|seconds?|milliseconds?)\b"),
)


@dataclass(frozen=True, slots=True)
class Patience:
    """What was tried before, per (server, revision).

    Attributes:
        acting: whether the actions of this pass are carried out; where not, nothing is due and nothing is counted.
    """

    now: datetime
    known: Mapping[tuple[str, str], ServerTrouble] = field(default_factory=dict)
    acting: bool = True

    def due(self, server: str, revision: str, reason: TroubleReason) -> bool:
        """Whether a load, or for WrongVectors a reload, may be tried in this pass: each waits for its own last try."""
        known = self.known.get((server, revision))
        if not self.acting:
            return False
        if known is None or known.retry_at is None or not _tries(known, reason):
            return True
        return parse_time(known.retry_at) <= self.now

    def exhausted(self, server: str, revision: str) -> bool:
        """Whether a reload was tried as often as it may help."""
        known = self.known.get((server, revision))
        return known is not None and known.reloads >= MAX_RELOADS

    def trouble(
        self, server: str, revision: str, reason: TroubleReason, message: str, *, tried: bool = False
    ) -> ServerTrouble:
        """The trouble as the status keeps it; `tried` says that this pass loads or reloads.

        Loads are counted until one worked, reloads until the vectors are right: neither uses up the other's patience,
        and a server that dies between two tries does not make either begin anew.
        """
        known = self.known.get((server, revision))
        wrong = reason == "WrongVectors"
        attempts = 0 if known is None or wrong else known.attempts
        reloads = known.reloads if known is not None else 0
        if tried:
            attempts, reloads = (attempts, reloads + 1) if wrong else (attempts + 1, reloads)
        carried = reason == "NoAnswer" or (reloads if wrong else attempts) > 0
        retry_at = known.retry_at if known is not None and carried else None
        if tried:
            retry_at = format_time(self.now + timedelta(seconds=_wait(reloads if wrong else attempts)))
        if wrong and reloads >= MAX_RELOADS:
            retry_at = None
        lasting = known is not None and _same(known.reason, reason)
        return ServerTrouble(
            server=server[:256],
            revision=revision,
            reason=reason,
            message=message[:MESSAGE_LIMIT],
            since=known.since if known is not None and lasting else format_time(self.now),
            attempts=attempts,
            reloads=reloads,
            retry_at=retry_at,
        )


def _tries(known: ServerTrouble, reason: TroubleReason) -> int:
    return known.reloads if reason == "WrongVectors" else known.attempts


def _same(one: str, other: str) -> bool:
    return _SAME.get(one, one) == _SAME.get(other, other)


def _wait(tries: int) -> float:
    """Seconds until the next try after so many."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(max(tries, 1) - 1, MOST_DOUBLINGS), LONGEST_RETRY_SECONDS)


def patience_of(status: EmbeddingModelStatus, now: datetime, *, acting: bool) -> Patience:
    """What the status says was tried."""
    failing = status.servers.failing if status.servers is not None else ()
    return Patience(now, {(item.server, item.revision): item for item in failing}, acting)


def told(trouble: ServerTrouble) -> str:
    """One trouble for people: what is seen, since when, what is tried and what is left to them."""
    text = f"{trouble.message}, {trouble.reason} since {trouble.since}"
    tries = _tries(trouble, trouble.reason)
    if trouble.reason == "WrongVectors" and tries >= MAX_RELOADS:
        return f"{text}; reloaded {tries} times in vain: restart or replace this server"
    tried = trouble.reason in ("NotLoaded", "WrongVectors") and tries and trouble.retry_at is not None
    again = f"; tried {tries} times, again from {trouble.retry_at} on" if tried else ""
    return f"{text}{again}; {_NEXT[trouble.reason]}"


def told_together(troubles: Iterable[ServerTrouble]) -> str:
    """Every trouble; where a message does not hold what each server said, every server with its reason all the same."""
    items = tuple(dict.fromkeys(troubles))
    whole = "; ".join(dict.fromkeys(told(item) for item in items))
    if len(whole) <= MAX_MESSAGE:
        return whole
    by_reason: dict[str, list[str]] = {}
    for item in items:
        by_reason.setdefault(item.reason, []).append(f"{item.server} ({item.revision} since {item.since})")
    parts = [f"{reason}: {', '.join(where)}; {_NEXT[reason]}" for reason, where in sorted(by_reason.items())]
    return "; ".join(("what each server said is in status.servers.failing", *parts))


def hurried(troubles: Iterable[ServerTrouble], now: datetime) -> bool:
    """Whether a server may be back within seconds; one that has been so for long, or silent, is looked at calmly."""
    return any((now - parse_time(item.since)).total_seconds() < HURRIED_SECONDS for item in troubles)


def cause(said: str) -> str:
    """Why a server gave no answer, in words that stay the same from pass to pass.

    A client's own words for one dead server change with every try (addresses, which of them was last, waits), and each
    change would be another write of the status.
    """
    return next((words for words, pattern in _CAUSES if pattern.search(said)), steady(said))


def steady(said: str) -> str:
    """What a server or its client said, on one line, without times, addresses of memory and waits."""
    for pattern in _VOLATILE:
        said = pattern.sub("…", said)
    return " ".join(said.split())
