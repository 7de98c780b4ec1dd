"""Live signals, judged: Degraded stops the waves until a person acts, Healthy is proved, everything else is Unknown.

What is said is written when the state changes, and otherwise only where the bounds have moved by as much as anybody
would notice, minutes apart: every change of a model's status is read by many.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from searchops.api.meta import format_time, parse_time
from searchops.api.v1alpha1.embedding_model import ModelReason
from searchops.api.v1alpha1.embedding_model_status import SignalStatus
from searchops.planning.conditions import Finding, no, unknown, yes
from searchops.planning.model_facts import EmitEvent
from searchops.planning.names import RETRY_ANNOTATION, ROLLBACK_ANNOTATION
from searchops.planning.signal_evidence import MIN_TENANTS
from searchops.planning.signal_windows import asked_of, told_before

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel, Signal
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus
    from searchops.planning.confidence_sequence import Interval
    from searchops.planning.model_facts import ModelAction, ModelFacts
    from searchops.planning.signal_evidence import Asked, Evidence

State = Literal["Healthy", "Degraded", "Unknown"]
SIGNAL_POLL_SECONDS = 60.0
QUIET = timedelta(minutes=5)
NOTICED = 0.005
MAX_WHY = 512
MOST_PENDING = 0.05
"""Share of the tenants that need not be measured where a wave waits for its signals: there are always new ones."""
COUNTED = {
    "ZeroResults": "searches without a hit",
    "Errors": "searches without an answer or without the encoder",
    "SlowSearches": "searches slower than",
}


def with_signals(
    model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus, now: datetime
) -> tuple[EmbeddingModelStatus, tuple[ModelAction, ...]]:
    """The status with what each declared signal says, and an event for each that has got worse.

    Args:
        model: as cached, so that its status is the one that the evidence was gathered under.
        facts: with what was measured.
        status: of the pass so far.
        now: the time of the pass.
    """
    if status.candidate is None or status.wave is None:
        return status, ()
    told: list[SignalStatus] = []
    events: list[ModelAction] = []
    for signal in model.spec.rollout.signals:
        asked = asked_of(model, signal, format_time(now))
        if asked is None:
            continue
        known = told_before(status.signals, signal.name, asked.revision)
        fresh = _judged(signal, asked, facts, now)
        kept = known if known is not None and _still_holds(known, fresh, now) else fresh
        told.append(kept)
        if kept.state == "Degraded" and (known is None or known.state != "Degraded"):
            events.append(EmitEvent(str(ModelReason.SIGNAL_DEGRADED), _degraded(signal, kept), warning=True))
    return status.model_copy(update={"signals": tuple(told)}), tuple(events)


def _judged(signal: Signal, asked: Asked, facts: ModelFacts, now: datetime) -> SignalStatus:
    found = facts.signals.evidence.get(signal.name)
    if found is not None and found.asked != asked:  # gathered in the second before a new retry token
        found = None
    state, why = _state(signal, found, configured=facts.signals.configured)
    return SignalStatus(
        name=signal.name,
        revision=asked.revision,
        question=asked.question,
        retry_token=asked.retry_token,
        after=asked.after,
        state=state,
        tenants=found.tenants if found is not None else 0,
        interval=_written(found.interval) if found is not None and found.interval is not None else (),
        why=why[:MAX_WHY],
        at=format_time(now),
    )


def _state(signal: Signal, found: Evidence | None, *, configured: bool) -> tuple[State, str]:
    """The state and what it rests on. What is not read can hide an improvement, so it stops no alarm."""
    if not configured:
        return "Unknown", "settings.prometheusUrl of the operator is empty, so that there is nothing to read it from"
    if found is None:
        return "Unknown", "it has not been measured yet"
    margin, bounds = float(signal.margin), found.interval if found.tenants >= MIN_TENANTS else None
    if bounds is not None and bounds.lower > margin:
        return "Degraded", f"the mean added share is at least {bounds.lower:+.4f}, margin {signal.margin}"
    if found.unread:
        return "Unknown", found.unread
    if bounds is None:
        return "Unknown", f"{found.tenants} tenants are measured, wanted at least {MIN_TENANTS}"
    awaited = found.pending > MOST_PENDING * (found.tenants + found.pending)
    if bounds.upper <= margin and awaited and signal.on_unknown == "Hold":
        return "Unknown", f"{found.tenants} tenants are within the margin, {found.pending} are not measured yet"
    if bounds.upper <= margin:
        return "Healthy", f"the mean added share is at most {bounds.upper:+.4f}, margin {signal.margin}"
    return "Unknown", f"the margin {signal.margin} lies within the interval; more tenants make it narrower"


def _still_holds(known: SignalStatus, fresh: SignalStatus, now: datetime) -> bool:
    """Whether what the status says may stay: Degraded until the question is another, the rest until it has moved."""
    if (known.question, known.retry_token) != (fresh.question, fresh.retry_token):
        return False
    if known.state == "Degraded":
        return True
    if known.state != fresh.state:
        return False
    if parse_time(known.at) + QUIET > now:
        return True
    return not _moved(known, fresh) if known.state == "Healthy" else known == fresh.model_copy(update={"at": known.at})


def _moved(known: SignalStatus, fresh: SignalStatus) -> bool:
    bounds = zip(known.interval, fresh.interval, strict=True)
    return any(abs(float(one) - float(other)) >= NOTICED for one, other in bounds)


def _written(interval: Interval) -> tuple[str, str]:
    return f"{interval.lower:+.4f}", f"{interval.upper:+.4f}"


def _counted(signal: Signal) -> str:
    return f"{COUNTED[signal.name]} {signal.slower_than or ''}".strip()


def _degraded(signal: Signal, told: SignalStatus) -> str:
    low, high = told.interval
    return (
        f"signal {signal.name}: {_counted(signal)} have risen by {low} to {high} of all searches on the mean of "
        f"{told.tenants} tenants that switched to {told.revision}, margin {signal.margin}; no further tenant is "
        f"started; look at their searches, then take the candidate back: annotate {ROLLBACK_ANNOTATION} with its "
        f"revision; or go on: raise the margin in spec.rollout.signals, or set spec.rollout.retryToken (or annotate "
        f"{RETRY_ANNOTATION}), which counts the tenants that switch from then on"
    )


def degraded_signal(model: EmbeddingModel, status: EmbeddingModelStatus) -> str | None:
    """Why the waves stand: a signal that got worse, as long as it is declared."""
    for signal, told in _pairs(model, status):
        if told.state == "Degraded":
            return _degraded(signal, told)
    return None


def awaited_signals(model: EmbeddingModel, status: EmbeddingModelStatus) -> str | None:
    """Why a complete wave is not followed by the next: a signal with ``onUnknown: Hold`` is not known to be healthy."""
    waits = [
        f"{told.name}: {told.why}"
        for signal, told in _pairs(model, status)
        if signal.on_unknown == "Hold" and told.state == "Unknown"
    ]
    if not waits:
        return None
    return (
        f"not known to be healthy, and spec.rollout.signals has onUnknown: Hold: {'; '.join(waits)}; it is measured "
        "again; set onUnknown: Continue to go on without it"
    )


def _pairs(model: EmbeddingModel, status: EmbeddingModelStatus) -> list[tuple[Signal, SignalStatus]]:
    if status.candidate is None:
        return []
    pairs = (
        (signal, told_before(status.signals, signal.name, status.candidate.revision))
        for signal in model.spec.rollout.signals
    )
    return [(signal, told) for signal, told in pairs if told is not None]


def signals_finding(model: EmbeddingModel, status: EmbeddingModelStatus, facts: ModelFacts) -> tuple[Finding, ...]:
    """The condition SignalsHealthy: while waves run, and wherever signals are declared that nothing can be read for."""
    declared = model.spec.rollout.signals
    if not declared:
        return ()
    broken = degraded_signal(model, status)
    if broken is not None:
        return (no("SignalsHealthy", ModelReason.SIGNAL_DEGRADED, broken),)
    if not facts.signals.configured:
        message = (
            f"spec.rollout.signals declares {_names(declared)}, and settings.prometheusUrl of the operator is empty; "
            "set it, or declare no signals"
        )
        return (unknown("SignalsHealthy", ModelReason.NOT_CONFIGURED, message),)
    if status.candidate is None or status.wave is None:
        return ()
    pairs = _pairs(model, status)
    open_ones = [told for _, told in pairs if told.state != "Healthy"]
    if open_ones or len(pairs) < len(declared):
        message = "; ".join(f"{told.name}: {told.why}" for told in open_ones) or "they have not been measured yet"
        return (unknown("SignalsHealthy", ModelReason.SIGNALS_UNKNOWN, message),)
    message = "; ".join(f"{told.name} of {told.tenants} tenants: {told.why}" for _, told in pairs)
    return (yes("SignalsHealthy", ModelReason.SIGNALS_HEALTHY, message),)


def _names(declared: Sequence[Signal]) -> str:
    return ", ".join(signal.name for signal in declared)


def signal_poll(model: EmbeddingModel, status: EmbeddingModelStatus) -> float | None:
    """Seconds until signals are to be looked at again; None where none are."""
    watched = bool(model.spec.rollout.signals) and status.candidate is not None and status.wave is not None
    return SIGNAL_POLL_SECONDS if watched else None
