"""What finished ReindexJobs measured, by model: read once a minute for everybody, however many tenants ask."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from searchops.api.meta import parse_time
from searchops.planning.rebuild_rates import MeasuredJob, rate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from searchops.api.v1alpha1 import ReindexJob
    from searchops.planning.rebuild_rates import MeasuredRate
    from searchops.runtime.cache import CachedObject, ObjectCache

GOOD_FOR = timedelta(minutes=1)
_REVISION = re.compile(r"(?P<model>.+)-r(?P<number>[0-9]+)-[0-9a-f]+")


class ReindexRates:
    """The rates of each model's revisions.

    Args:
        reindexes: the watch's cache; finished jobs are in it until their time to live is over.
        clock: now.
    """

    def __init__(self, reindexes: ObjectCache[ReindexJob], clock: Callable[[], datetime]) -> None:
        self._reindexes = reindexes
        self._clock = clock
        self._read_at: datetime | None = None
        self._rates: dict[str, tuple[MeasuredRate, ...]] = {}

    def of(self, model: str) -> tuple[MeasuredRate, ...]:
        """Rates of the model's revisions, the latest revision first, then of jobs that ran no encoder."""
        now = self._clock()
        if self._read_at is None or not timedelta(0) <= now - self._read_at < GOOD_FOR:
            self._read(now)
        return (*self._rates.get(model, ()), *self._rates.get("", ()))

    def _read(self, now: datetime) -> None:
        jobs: dict[str | None, list[MeasuredJob]] = {}
        for cached in self._reindexes:
            measured = _measured(cached)
            if measured is not None:
                jobs.setdefault((cached.raw.get("spec") or {}).get("revision"), []).append(measured)
        found: dict[str, list[tuple[int, MeasuredRate]]] = {}
        for revision, measured_jobs in jobs.items():
            match = _REVISION.fullmatch(revision or "")
            rate = rate_of(revision, measured_jobs)
            if rate is None or (revision is not None and match is None):
                continue
            model, number = (match["model"], int(match["number"])) if match is not None else ("", 0)
            found.setdefault(model, []).append((number, rate))
        self._rates = {
            model: tuple(rate for _, rate in sorted(rates, key=lambda item: -item[0])) for model, rates in found.items()
        }
        self._read_at = now


def _measured(cached: CachedObject) -> MeasuredJob | None:
    """What a job took whose time was its own: switched without a person's word, at the first try."""
    status: Mapping[str, object] = cached.status
    if status.get("phase") != "Switched" or status.get("retries"):
        return None
    if (cached.raw.get("spec") or {}).get("cutover") == "Manual":
        return None
    progress, cost = cached.status.get("progress") or {}, cached.status.get("cost") or {}
    documents = int(progress.get("embedded") or 0) - int(cost.get("documentsBefore") or 0)
    try:
        began, ended = (parse_time(str(status[name])) for name in ("startedAt", "finishedAt"))
    except (KeyError, ValueError):
        return None
    seconds = (ended - began).total_seconds()
    if documents <= 0 or seconds <= 0:
        return None
    return MeasuredJob(documents, seconds, int(cost.get("gpuSeconds") or 0) or None)
