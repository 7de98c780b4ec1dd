"""What finished ReindexJobs say of the next one: measured or unknown, never guessed, never below what was measured."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.v1alpha1.search_tenant_status import CostForecast
from searchops.planning.rebuild_rates import (
    GPU_LABEL,
    NO_PRICES,
    Cost,
    Duration,
    GpuPrices,
    MeasuredJob,
    MeasuredRate,
    cost_of_rebuild,
    duration_of,
    rate_of,
    rounded_up,
)

R2, R3 = "enc-r2-00000002", "enc-r3-00000003"
PRICES = GpuPrices("EUR", {"a10": "1.10"})
LABELS = {GPU_LABEL: "a10"}
JOBS = st.lists(
    st.builds(
        MeasuredJob,
        st.integers(1, 10**9),
        st.floats(1, 10**7),
        st.one_of(st.none(), st.integers(1, 10**9)),
    ),
    max_size=12,
)


def cost(documents: int, rates: Any, revision: str | None = R3, prices: GpuPrices = PRICES, **changes: Any) -> Cost:
    labels = changes.get("labels", LABELS)
    return cost_of_rebuild(documents, rates, revision, prices, "gpu", labels)


def test_the_slowest_and_the_dearest_of_the_largest_jobs_count() -> None:
    jobs = [MeasuredJob(6400, 10.0, 40), MeasuredJob(9000, 10.0, 20), MeasuredJob(8000, 10.0), MeasuredJob(5, 60.0, 60)]
    jobs += [MeasuredJob(7000 + number, 10.0, 7) for number in range(2)]
    assert rate_of(R3, jobs) == MeasuredRate(R3, 5, 640.0, 4, 40 / 6400)
    assert rate_of(R3, []) is None


def test_the_basis_names_the_jobs_and_the_slowest_of_them() -> None:
    rates = (MeasuredRate(R3, 3, 640.0, 2, 0.00625), MeasuredRate(R2, 1, 10.0))
    assert duration_of(18_231, rates, R3, 30.0) == Duration(
        59,
        f"measured on 3 jobs of {R3}, slowest 640/s from its first worker to the switch; 30 s for the gateways are in "
        "it, waiting for other rebuilds is not",
    )
    assert cost(100_000, rates) == Cost(
        630,
        f"measured on 2 jobs of {R3}, dearest 6.2 GPU seconds a thousand points",
        CostForecast(amount="0.20", currency="EUR"),
        "1.10 EUR a GPU-hour of a10",
    )


def test_another_revision_of_the_model_is_named_as_such() -> None:
    rates = (MeasuredRate(R2, 1, 10.0, 1, 0.5), MeasuredRate(None, 4, 900.0))
    said = f"measured on 1 job of {R2}, another revision of the model"
    took = duration_of(100, rates, R3, 0.0)
    assert (took.seconds, took.basis.startswith(f"{said}, slowest 10/s ")) == (10, True)
    assert cost(100, rates).gpu_basis == f"{said}, dearest 500 GPU seconds a thousand points"


def test_without_an_encoder_only_such_jobs_count_and_no_gpu_is_used() -> None:
    assert duration_of(100, (MeasuredRate(R2, 1, 10.0),), None, 30.0).seconds is None
    assert duration_of(100, (MeasuredRate(None, 1, 10.0),), None, 30.0).seconds == 40
    assert duration_of(100, (MeasuredRate(None, 1, 10.0),), R3, 30.0).seconds is None
    assert cost(100, (), None) == Cost(0, "no encoder runs, so that no GPU is used", None, "no cost: no GPU is used")


@pytest.mark.parametrize(
    ("prices", "labels", "why"),
    [
        (NO_PRICES, LABELS, "no cost: settings.gpuHourPrices is empty"),
        (PRICES, None, "no cost: there is no PodTemplate gpu in the operator's namespace"),
        (PRICES, {}, "no cost: PodTemplate gpu has no label searchops.dev/gpu"),
        (
            PRICES,
            {GPU_LABEL: "h100"},
            "no cost: settings.gpuHourPrices has no price for 'h100', the label of PodTemplate gpu",
        ),
    ],
)
def test_without_a_price_there_are_gpu_seconds_and_no_cost(prices: GpuPrices, labels: Any, why: str) -> None:
    found = cost(100, (MeasuredRate(R3, 1, 10.0, 1, 0.5),), prices=prices, labels=labels)
    assert (found.gpu_seconds, found.price, found.basis) == (50, None, why)


def test_an_unknown_rate_gives_no_number() -> None:
    took = duration_of(10**6, (), R3, 30.0)
    assert took.seconds is None
    assert took.basis.startswith("unknown: no ReindexJob of this model has finished")
    for rates in ((), (MeasuredRate(R3, 2, 10.0),)):
        found = cost(10**6, rates)
        assert (found.gpu_seconds, found.price) == (None, None)
        assert found.gpu_basis.startswith("unknown: ")
        assert found.basis == "unknown: so are the GPU seconds"


@given(st.floats(0, 1e15))
def test_rounding_up_has_two_digits_and_never_hides_anything(value: float) -> None:
    found = rounded_up(value)
    assert found >= value
    assert found <= max(math.ceil(value), math.ceil(value) * 1.1 + 1)
    assert str(found).rstrip("0") == "" or len(str(found).rstrip("0")) <= 2


@given(JOBS, JOBS, st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 3600))
def test_figures_are_never_negative_nor_below_what_was_measured_and_grow_with_the_documents(
    jobs: list[MeasuredJob], others: list[MeasuredJob], documents: int, more: int, settle: float
) -> None:
    rates = tuple(rate for rate in (rate_of(R3, jobs), rate_of(R2, others)) if rate is not None)
    few, many = (duration_of(number, rates, R3, settle) for number in (documents, documents + more))
    assert (few.seconds is None) is (not rates)
    if few.seconds is not None and many.seconds is not None:
        assert settle <= few.seconds <= many.seconds
    cheap, dear = (cost(number, rates) for number in (documents, documents + more))
    assert (cheap.gpu_seconds is None) is (not rates or rates[0].dearest is None)
    assert (cheap.price is None) is (cheap.gpu_seconds is None)
    if cheap.gpu_seconds is not None and dear.gpu_seconds is not None:
        assert 0 <= cheap.gpu_seconds <= dear.gpu_seconds
    if cheap.price is not None and dear.price is not None:
        assert 0 <= Decimal(cheap.price.amount) <= Decimal(dear.price.amount)


@given(JOBS)
def test_a_rate_is_a_finite_number_above_nothing(jobs: list[MeasuredJob]) -> None:
    rate = rate_of(R3, jobs)
    if rate is not None:
        assert 0 < rate.slowest < math.inf
        assert rate.dearest is None or 0 < rate.dearest < math.inf
