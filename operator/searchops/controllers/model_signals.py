"""Live signals of the models whose waves run, read at most once a minute; an answer that is there is kept.

The hours that are asked about are over, so that nothing is asked twice in one process. Another process asks again for
what it needs, a few windows a turn: until it has caught up, the signals are Unknown.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from searchops.api.meta import format_time
from searchops.planning.signal_evidence import NOT_MEASURED, SignalFacts, counted, differences, weigh
from searchops.planning.signal_windows import asked_of, hours_of, switched_by_hour, windows_of
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from searchops.api.live_signals import Share, Window
    from searchops.api.v1alpha1 import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model import Signal
    from searchops.planning.model_facts import TenantFact
    from searchops.planning.signal_evidence import Asked, Evidence

EVERY = timedelta(minutes=1)
LATE = timedelta(hours=1)
"""Samples that are forwarded may come late: for as long, hours of which nothing is known are asked about again."""
WINDOWS_PER_TURN = 12
TURN_SECONDS = 10.0
"""A pass over a model waits no longer than this for all of its signals."""

Tenants = tuple[str, ...]
"""Values of the label ``tenant``."""


class SignalSource(Protocol):
    """What the gateways count of tenants' searches."""

    async def shares(self, window: Window, tenants: Sequence[str]) -> Mapping[str, Share]:
        """The share of each of these tenants in a window; one that nothing is known of is absent.

        Raises:
            Transient: it is not known.
        """
        ...


@dataclass(slots=True)
class _Kept:
    """What is known of one model's signals.

    Attributes:
        asked: what the facts answer.
        at: when they were gathered.
        read: per window the tenants that were asked about, and the differences that came of it.
        told: per signal the question, and each tenant's difference in the order that they became known in: it is only
            ever added to, whoever goes back, is deleted or joins an hour late, since the bounds rest on that.
        weighed: per signal the differences that were weighed last, and what came of it.
    """

    asked: tuple[Asked, ...]
    at: datetime
    facts: SignalFacts = NOT_MEASURED
    read: dict[Window, tuple[Tenants, dict[str, float]]] = field(default_factory=dict)
    told: dict[str, tuple[Asked, dict[str, float]]] = field(default_factory=dict)
    weighed: dict[str, tuple[tuple[float, ...], Evidence]] = field(default_factory=dict)

    def differences(self, name: str, question: Asked) -> dict[str, float]:
        """What is known of a signal for this question; another question begins anew."""
        known = self.told.get(name)
        if known is None or known[0] != question:
            known = self.told[name] = (question, {})
        return known[1]


class ModelSignals:
    """Gathers what plans know of live signals.

    Args:
        source: None where none is configured.
        clock: the time.
    """

    def __init__(self, source: SignalSource | None, clock: Callable[[], datetime]) -> None:
        self._source = source
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def of(self, model: EmbeddingModel, tenants: Sequence[TenantFact]) -> SignalFacts:
        """The signals of a model; nothing is asked while no wave of it runs."""
        now, uid = self._clock(), model.metadata.uid
        pairs = [(signal, asked_of(model, signal, format_time(now))) for signal in model.spec.rollout.signals]
        asked = [(signal, question) for signal, question in pairs if question is not None]
        if self._source is None or not asked or model.metadata.deletion_timestamp is not None:
            self._kept.pop(uid, None)
            return SignalFacts(configured=self._source is not None)
        questions = tuple(question for _, question in asked)
        kept = self._kept.get(uid)
        if kept is not None and kept.asked == questions and now < kept.at + EVERY:
            return _with_pending(kept, asked, tenants, now)
        if kept is None:
            kept = self._kept[uid] = _Kept(questions, now)
        kept.asked, kept.at = questions, now
        await self._turn(kept, self._source, asked, tenants, now)
        return kept.facts

    async def _turn(
        self,
        kept: _Kept,
        source: SignalSource,
        asked: Sequence[tuple[Signal, Asked]],
        tenants: Sequence[TenantFact],
        now: datetime,
    ) -> None:
        """Read what is missing, the earliest hours of every signal first, and weigh what is there."""
        switched: dict[tuple[str | None, int], tuple[dict[datetime, Tenants], int]] = {}
        planned: dict[str, tuple[dict[Window, Tenants], int]] = {}
        for signal, question in asked:
            key = (question.after, hours_of(signal))
            if key not in switched:
                switched[key] = switched_by_hour(question, tenants, key[1], now)
            by_hour, pending = switched[key]
            planned[signal.name] = (windows_of(signal, by_hour), pending)
        wanted = {window: inside for windows, _ in planned.values() for window, inside in windows.items()}
        kept.read = {window: known for window, known in kept.read.items() if window in wanted}
        missing = [window for window, inside in wanted.items() if not _is_read(kept, window, inside)]
        missing.sort(key=lambda window: window.start)
        why = await self._read(kept, source, {window: wanted[window] for window in missing[:WINDOWS_PER_TURN]})
        known = {window: kept.read[window][1] for window in wanted if _is_read(kept, window, wanted[window])}
        evidence = {
            signal.name: _weighed(kept, signal, question, planned[signal.name], known, why)
            for signal, question in asked
        }
        kept.facts = SignalFacts(True, evidence)

    async def _read(self, kept: _Kept, source: SignalSource, turn: Mapping[Window, Tenants]) -> str:
        """Ask for some windows at once; why one of them is not read, or nothing."""
        said: list[str] = []

        async def one(window: Window, names: Tenants) -> None:
            try:
                before, after = await asyncio.gather(source.shares(window.before, names), source.shares(window, names))
            except Transient as error:
                said.append(error.message)
            else:
                if not after and kept.at < window.end + LATE:
                    said.append(f"no search is known of yet of the hours from {format_time(window.start)} on")
                else:
                    kept.read[window] = (names, differences(before, after))

        try:
            async with asyncio.timeout(TURN_SECONDS), asyncio.TaskGroup() as group:
                for window, names in turn.items():
                    group.create_task(one(window, names))
        except TimeoutError:
            said.append(f"the signals were not all read within {TURN_SECONDS:g} s")
        return said[0] if said else ""


def _with_pending(
    kept: _Kept, asked: Sequence[tuple[Signal, Asked]], tenants: Sequence[TenantFact], now: datetime
) -> SignalFacts:
    """What is kept, and who has switched since: nobody is measured before the next turn, and each of them waits."""
    evidence = dict(kept.facts.evidence)
    for signal, question in asked:
        known = evidence.get(signal.name)
        _, pending = switched_by_hour(question, tenants, hours_of(signal), now)
        if known is not None and pending > known.pending:
            evidence[signal.name] = replace(known, pending=pending)
    return kept.facts if evidence == kept.facts.evidence else SignalFacts(True, evidence)


def _weighed(
    kept: _Kept,
    signal: Signal,
    question: Asked,
    planned: tuple[dict[Window, Tenants], int],
    known: Mapping[Window, Mapping[str, float]],
    why: str,
) -> Evidence:
    """What is known of a signal; what has not changed since the last turn is not weighed again."""
    windows, pending = planned
    fresh, read = counted(windows, known)
    differences = kept.differences(signal.name, question)
    differences |= {tenant: value for tenant, value in fresh.items() if tenant not in differences}
    found = tuple(differences.values())
    unread = "" if read == len(windows) else f"{read} of {len(windows)} windows are read{why and f': {why}'}"
    before = kept.weighed.get(signal.name)
    if before is not None and before[0] == found:
        return replace(before[1], asked=question, pending=pending, unread=unread)
    evidence = weigh(question, found, pending=pending, unread=unread)
    kept.weighed[signal.name] = (found, evidence)
    return evidence


def _is_read(kept: _Kept, window: Window, tenants: Tenants) -> bool:
    """Whether all of these were asked about; those that have left since do no harm."""
    known = kept.read.get(window)
    return known is not None and (known[0] == tenants or set(tenants) <= set(known[0]))
