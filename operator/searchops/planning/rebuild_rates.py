"""How fast and how dear rebuilds were: figures of finished ReindexJobs, and what they say about the next one.

A figure that nobody measured is None with a reason, never a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING

from searchops.api.v1alpha1.search_tenant_status import CostForecast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LARGEST = 5
"""Jobs of a revision that count: the largest ones, in which starting a worker is the least part of the time."""
DIGITS = 2
GPU_LABEL = "searchops.dev/gpu"
"""Label of a PodTemplate whose value the settings' prices are by."""
HOUR = 3600
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class MeasuredJob:
    """What one finished ReindexJob took, from its first worker to the switch.

    Attributes:
        documents: that its side got, above 0.
        seconds: above 0.
        gpu_seconds: over all its workers; None where that was not counted.
    """

    documents: int
    seconds: float
    gpu_seconds: int | None = None

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.documents / self.seconds


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """What the largest finished ReindexJobs of one revision say.

    Attributes:
        revision: that they embedded with; None for those that made lexical vectors only.
        jobs: how many count.
        slowest: points a second of the slowest, above 0.
        gpu_jobs: how many of them counted GPU seconds.
        dearest: GPU seconds a point of the dearest; None where none counted them.
    """

    revision: str | None
    jobs: int
    slowest: float
    gpu_jobs: int = 0
    dearest: float | None = None


@dataclass(frozen=True, slots=True)
class GpuPrices:
    """Prices of the settings.

    Attributes:
        currency: of each.
        by_label: a GPU-hour's price by the value of the PodTemplate's label.
    """

    currency: str = ""
    by_label: Mapping[str, str] | None = None


NO_PRICES = GpuPrices()


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds with what they rest on; None is unknown, and the basis says why."""

    seconds: int | None
    basis: str


@dataclass(frozen=True, slots=True)
class Cost:
    """GPU seconds and their price, each with what it rests on; None is unknown, and the basis says why."""

    gpu_seconds: int | None
    gpu_basis: str
    price: CostForecast | None
    basis: str


def rate_of(revision: str | None, jobs: Iterable[MeasuredJob]) -> MeasuredRate | None:
    """The rate of the largest of these jobs; None where there is none."""
    largest = sorted(jobs, key=lambda job: (-job.documents, -job.seconds))[:LARGEST]
    if not largest:
        return None
    counted = [job.gpu_seconds / job.documents for job in largest if job.gpu_seconds]
    return MeasuredRate(
        revision, len(largest), min(job.rate for job in largest), len(counted), max(counted, default=None)
    )


def rounded_up(value: float) -> int:
    """Two digits, never less than the value, so that a small move of what it is made from does not show."""
    whole = math.ceil(value)
    step: int = 10 ** max(0, len(str(whole)) - DIGITS)
    return -(-whole // step) * step


def best_rate(rates: Sequence[MeasuredRate], revision: str | None) -> MeasuredRate | None:
    """Of this very revision, else of the first other one; without an encoder only the like is comparable."""
    same = next((rate for rate in rates if rate.revision == revision), None)
    if same is not None or revision is None:
        return same
    return next((rate for rate in rates if rate.revision is not None), None)


def duration_of(documents: int, rates: Sequence[MeasuredRate], revision: str | None, settle: float) -> Duration:
    """How long a rebuild of so many documents takes, the wait for every gateway (`settle`, seconds) in it."""
    rate = best_rate(rates, revision)
    if rate is None:
        return Duration(None, unmeasured(revision))
    seconds = rounded_up(settle + documents / rate.slowest)
    basis = f"{measured_on(rate, revision, settle)} are in it, waiting for other rebuilds is not"
    return Duration(seconds, basis)


def unmeasured(revision: str | None) -> str:
    """Why there is no time."""
    what = "of this model" if revision is not None else "without an encoder"
    return f"unknown: no ReindexJob {what} has finished, and only finished ones are measured"


def measured_on(rate: MeasuredRate, revision: str | None, settle: float) -> str:
    """What a time rests on, up to the wait for every gateway (`settle`, seconds)."""
    return (
        f"measured on {_jobs(rate.jobs)} {_of(rate, revision)}, slowest {_figure(rate.slowest)}/s from its first "
        f"worker to the switch; {math.ceil(settle)} s for the gateways"
    )


def cost_of_rebuild(
    documents: int,
    rates: Sequence[MeasuredRate],
    revision: str | None,
    prices: GpuPrices,
    template: str,
    labels: Mapping[str, str] | None,
) -> Cost:
    """GPU seconds and their price.

    Args:
        documents: that are embedded.
        rates: of this model's revisions.
        revision: that the documents are embedded with.
        prices: of the settings.
        template: the PodTemplate that the workers are made from.
        labels: its labels; None where there is no such PodTemplate.
    """
    if revision is None:
        return Cost(0, "no encoder runs, so that no GPU is used", None, "no cost: no GPU is used")
    rate = best_rate(rates, revision)
    if rate is None or rate.dearest is None:
        why = "unknown: no finished ReindexJob of this model has counted its GPU seconds"
        return Cost(None, why, None, "unknown: so are the GPU seconds")
    gpu_seconds = rounded_up(documents * rate.dearest)
    measured = (
        f"measured on {_jobs(rate.gpu_jobs)} {_of(rate, revision)}, dearest {_figure(rate.dearest * 1000)} GPU seconds "
        "a thousand points"
    )
    price, why = _price(prices, template, labels)
    if price is None:
        return Cost(gpu_seconds, measured, None, why)
    amount = (price * gpu_seconds / HOUR).quantize(CENT, rounding=ROUND_UP)
    return Cost(gpu_seconds, measured, CostForecast(amount=f"{amount:f}", currency=prices.currency), why)


def _price(prices: GpuPrices, template: str, labels: Mapping[str, str] | None) -> tuple[Decimal | None, str]:
    """The price of a GPU-hour with where it is from, or None with what is missing."""
    if not prices.by_label:
        return None, "no cost: settings.gpuHourPrices is empty"
    if labels is None:
        return None, f"no cost: there is no PodTemplate {template} in the operator's namespace"
    value = labels.get(GPU_LABEL)
    if value is None:
        return None, f"no cost: PodTemplate {template} has no label {GPU_LABEL}"
    told = prices.by_label.get(value)
    if told is None:
        return None, f"no cost: settings.gpuHourPrices has no price for {value!r}, the label of PodTemplate {template}"
    return Decimal(told), f"{told} {prices.currency} a GPU-hour of {value}"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _of(rate: MeasuredRate, revision: str | None) -> str:
    if rate.revision is None:
        return "without an encoder"
    return f"of {rate.revision}" if rate.revision == revision else f"of {rate.revision}, another revision of the model"


def _figure(value: float) -> str:
    """Two digits for people: 640, 6.4, 0.064."""
    shown = float(f"{value:.2g}")
    return f"{shown:.0f}" if shown >= 10 else f"{shown:g}"
