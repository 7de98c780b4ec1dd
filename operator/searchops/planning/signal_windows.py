"""Live signals: what is asked of each now, and about which hours.

A tenant counts once, with the first whole hours after its switch, against the same hours of the same weekday a week
before. Hours are those of UTC, so that all tenants that switched within one share one question.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from searchops.api.live_signals import HOUR, Window, tenant_label
from searchops.api.meta import parse_duration, parse_time
from searchops.planning.names import short_hash
from searchops.planning.rollout_choice import retry_token
from searchops.planning.signal_evidence import Asked
from searchops.planning.waves import position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from searchops.api.live_signals import SignalName, SignalWindow
    from searchops.api.v1alpha1.embedding_model import EmbeddingModel, Signal
    from searchops.api.v1alpha1.embedding_model_status import SignalStatus
    from searchops.planning.model_facts import TenantFact

MAX_WINDOWS = 240
"""Start hours that are asked about: those of the first ten days of a rollout."""
SETTLE = timedelta(minutes=1)
"""After its switch a tenant is searched under the former binding for as long as gateways keep it."""
LAG = timedelta(minutes=5)
"""After its end a window is asked for: every gateway has been scraped, and what forwards samples has done so."""
DEFAULT_WINDOW: SignalWindow = "1h"


def asked_of(model: EmbeddingModel, signal: Signal, now: str) -> Asked | None:
    """What is asked of a signal; None while no wave of a candidate has started.

    Args:
        model: the object.
        signal: one of its signals.
        now: the time of the pass, RFC 3339: a new retry token counts from it.
    """
    status = model.status
    if status.candidate is None or status.wave is None:
        return None
    token = retry_token(model)
    known = told_before(status.signals, signal.name, status.candidate.revision)
    after = None if known is None else known.after if known.retry_token == token else now
    question = short_hash(
        signal.name, signal.margin, signal.slower_than or "", signal.window or DEFAULT_WINDOW, length=12
    )
    return Asked(status.candidate.revision, question, token, after)


def told_before(signals: Sequence[SignalStatus], name: SignalName, revision: str) -> SignalStatus | None:
    """What the status says of a signal for this candidate."""
    return next((item for item in signals if item.name == name and item.revision == revision), None)


def windows_of(signal: Signal, switched: Mapping[datetime, tuple[str, ...]]) -> dict[Window, tuple[str, ...]]:
    """The windows of a signal in their order, each with the tenants it tells of.

    Args:
        signal: one of the model's.
        switched: tenants by the hour that theirs begins with.
    """
    hours = hours_of(signal)
    return {Window(signal.name, signal.slower_than, start, hours): inside for start, inside in switched.items()}


def hours_of(signal: Signal) -> int:
    """How many whole hours of a signal are compared."""
    return int(parse_duration(signal.window or DEFAULT_WINDOW) / HOUR)


def switched_by_hour(
    asked: Asked, tenants: Sequence[TenantFact], hours: int, now: datetime
) -> tuple[dict[datetime, tuple[str, ...]], int]:
    """Tenants, by their labels, under the first whole hour after their switch; and how many are not measured yet.

    One that a person has held since its switch is searched with the candidate like any other: left out, it would take
    the harm with it that it was held for. Those of one hour are in the order of the hash by which waves take tenants,
    so that each is a draw like the others.
    """
    found: dict[datetime, list[tuple[float, str]]] = defaultdict(list)
    pending = 0
    for tenant in tenants:
        if tenant.bound != asked.revision:
            continue
        start = _first_hour(tenant.since, asked.after)
        if start is None:
            continue
        if start + HOUR * hours + LAG > now:
            pending += 1
        else:
            found[start].append(_place(tenant.namespace, tenant.name))
    first = sorted(found)[:MAX_WINDOWS]
    return {start: tuple(label for _, label in sorted(found[start])) for start in first}, pending


@lru_cache(maxsize=32_768)
def _place(namespace: str, name: str) -> tuple[float, str]:
    """Kept, since thousands of tenants are sorted once a minute."""
    return position(namespace, name), tenant_label(namespace, name)


def _first_hour(since: str | None, after: str | None) -> datetime | None:
    """The first whole hour after a switch; None where it is unknown or not to be counted."""
    try:
        moment = parse_time(since or "")
        begun = parse_time(after) if after is not None else None
    except ValueError:
        return None
    if begun is not None and moment < begun:
        return None
    settled = moment + SETTLE
    whole = settled.replace(minute=0, second=0, microsecond=0)
    return whole if whole == settled else whole + HOUR
