"""Live signals, measured: each tenant's difference of two shares, and the bounds of the mean of all.

Windows are counted in their order and only up to the first that is not read, so that evidence is only ever added to:
the bounds rest on that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from searchops.planning.confidence_sequence import Interval, mean_bounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.live_signals import Share, SignalName, Window

ALPHA = 0.05
"""Chance, for each signal and side, that its bound is wrong at any moment of a rollout."""
MIN_TENANTS = 10
MIN_SEARCHES = 20
"""Of a tenant in each of both windows; below it a share says next to nothing of the tenant."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of one signal now, and which tenants are counted.

    Attributes:
        revision: the candidate.
        question: digest of the signal's fields but `onUnknown`.
        retry_token: a new one counts anew.
        after: tenants that switched before it are not counted; None counts all.
    """

    revision: str
    question: str
    retry_token: str
    after: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured of a signal.

    Attributes:
        asked: what it answers.
        tenants: that are counted.
        interval: of the mean of their differences; None without any.
        pending: tenants that switched and whose window is not over.
        unread: why a window that is over is not read; empty where all are.
    """

    asked: Asked
    tenants: int
    interval: Interval | None
    pending: int = 0
    unread: str = ""


@dataclass(frozen=True, slots=True)
class SignalFacts:
    """What a pass knows of a model's live signals.

    Attributes:
        configured: whether there is anything to read them from.
    """

    configured: bool = False
    evidence: Mapping[SignalName, Evidence] = field(default_factory=dict)


NOT_MEASURED = SignalFacts()


def differences(before: Mapping[str, Share], now: Mapping[str, Share]) -> dict[str, float]:
    """Each tenant's share after its switch less the one before, where both windows have enough searches to tell."""
    return {
        tenant: _share(now[tenant]) - _share(share)
        for tenant, share in before.items()
        if tenant in now and share.of >= MIN_SEARCHES and now[tenant].of >= MIN_SEARCHES
    }


def _share(share: Share) -> float:
    """Two counters are read at moments that differ a little, so that a part may come out as more than the whole."""
    return min(1.0, max(0.0, share.part / share.of))


def counted(
    windows: Mapping[Window, tuple[str, ...]], read: Mapping[Window, Mapping[str, float]]
) -> tuple[dict[str, float], int]:
    """Each tenant's difference, window by window, and how many windows are read; both end at a gap."""
    found: dict[str, float] = {}
    for number, (window, tenants) in enumerate(windows.items()):
        answers = read.get(window)
        if answers is None:
            return found, number
        found |= {tenant: answers[tenant] for tenant in tenants if tenant in answers}
    return found, len(windows)


def weigh(asked: Asked, found: Sequence[float], *, pending: int = 0, unread: str = "") -> Evidence:
    """What differences say, at whatever moment it is asked."""
    interval = mean_bounds(found, ALPHA) if found else None
    return Evidence(asked, len(found), interval, pending, unread)
