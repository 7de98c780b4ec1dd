"""What rolling a candidate out would take: `status.plan` of a model, foreseen once it is built, before anyone approves.

The figures rest on finished ReindexJobs and on the estimated numbers of points; a figure that nobody measured is None
with a reason. A plan is told anew only when what it rests on has moved, so that a model that waits is not written at
every pass, and stays as foreseen while the waves run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchops.api.meta import parse_duration
from searchops.api.v1alpha1.embedding_model_status import RolloutPlanStatus, WaveForecast
from searchops.planning.quotas import BYTES_A_DIMENSION, MEGABYTE, moved
from searchops.planning.rebuild_rates import best_rate, cost_of_rebuild, measured_on, rounded_up, unmeasured
from searchops.planning.waves import is_reached

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, RevisionStatus
    from searchops.planning.model_facts import ModelFacts, TenantFact
    from searchops.planning.rebuild_rates import Cost

AT_ONCE = "tenants switch at once, and nothing is embedded: their vectors are there"
NOTHING = "no tenant is to be moved"


@dataclass(frozen=True, slots=True)
class Load:
    """What a group of tenants amounts to.

    Attributes:
        tenants: how many.
        embedded: how many of them are embedded before they switch.
        documents: of those, each counted once.
        largest: documents of the largest of those.
        points: documents of those, on all replicas.
    """

    tenants: int
    embedded: int
    documents: int
    largest: int
    points: int


def foresee(model: EmbeddingModel, facts: ModelFacts, status: EmbeddingModelStatus) -> RolloutPlanStatus | None:
    """The plan of the rollout that has not started; while waves run it stays as it was; None where nothing is built."""
    candidate = status.candidate
    if candidate is None or candidate.space_change is None:
        return None
    before = model.status.plan
    if before is not None and before.revision != candidate.revision:
        before = None
    if status.wave is not None:
        return before
    plan = _plan(model, facts, candidate)
    edited = model.status.observed_generation != model.metadata.generation
    return before if before is not None and not edited and _tells_the_same(before, plan) else plan


def what_going_back_takes(model: EmbeddingModel, facts: ModelFacts, revision: RevisionStatus | None) -> str:
    """What embedding every tenant once more would take, in words; empty where there is nothing to embed."""
    load = _load((tenant for tenant in facts.tenants if not tenant.held), None)
    if load.documents == 0:
        return ""
    name = revision.revision if revision is not None else None
    seconds = _seconds(model, facts, load, name)
    words = f"about {rounded_up(load.documents)} documents of {load.tenants} tenants"
    if seconds is None:
        return f"{words}, in a time that no finished ReindexJob of this model has measured"
    cost = _cost(model, facts, rounded_up(load.documents), name)
    price = f", {cost.price.amount} {cost.price.currency}" if cost.price is not None else ""
    gpu = f", {cost.gpu_seconds} GPU seconds{price}" if cost.gpu_seconds else ""
    return f"{words}, about {seconds} s with {_at_once(model, facts)} rebuilds at one time{gpu}"


def _load(tenants: Iterable[TenantFact], candidate: RevisionStatus | None) -> Load:
    """In one loop: a model's pass comes here at every change of any of its tenants.

    Args:
        tenants: that are moved.
        candidate: what they are moved to; None where every one is embedded.
    """
    count = embedded = documents = largest = points = 0
    for tenant in tenants:
        count += 1
        if candidate is not None and _switches_at_once(tenant, candidate):
            continue
        embedded += 1
        documents += tenant.documents
        largest = max(largest, tenant.documents)
        points += tenant.documents * tenant.replicas
    return Load(count, embedded, documents, largest, points)


def _switches_at_once(tenant: TenantFact, candidate: RevisionStatus) -> bool:
    """Whether nothing is embedded: the space stays, it is there already, or its previous side lacks nothing of it.

    A previous side that is not counted yet is taken for one that has to be filled: figures are what it takes at most.
    """
    if candidate.space_change == "Same" or tenant.bound == candidate.revision:
        return True
    return tenant.previous == candidate.revision and tenant.previous_lacking == 0


def _plan(model: EmbeddingModel, facts: ModelFacts, candidate: RevisionStatus) -> RolloutPlanStatus:
    groups = [_load(group, candidate) for group in _by_wave(model, facts.tenants)]
    tenants, embedded = (
        sum(values) for values in zip(*((item.tenants, item.embedded) for item in groups), strict=True)
    )
    documents = sum(group.documents for group in groups)
    waves = _waves(model, facts, candidate, groups)
    cost = _cost(model, facts, documents, candidate.revision)
    still = "" if embedded else AT_ONCE if tenants else NOTHING
    points = sum(group.points for group in groups)
    return RolloutPlanStatus(
        revision=candidate.revision,
        space_change=candidate.space_change or "Incompatible",
        tenants=tenants,
        documents=documents,
        waves=waves,
        seconds=waves[-1].finish_seconds,
        seconds_basis=still or _seconds_basis(model, facts, candidate),
        gpu_seconds=0 if still else cost.gpu_seconds,
        gpu_seconds_basis=still or cost.gpu_basis,
        cost=None if still else cost.price,
        cost_basis=still or cost.basis,
        extra_megabytes=rounded_up(points * (candidate.dimension or 0) * BYTES_A_DIMENSION / MEGABYTE),
    )


def _by_wave(model: EmbeddingModel, tenants: Sequence[TenantFact]) -> list[list[TenantFact]]:
    """For each wave the tenants that it begins: those that no earlier one has reached, without held ones."""
    groups: list[list[TenantFact]] = []
    left = [tenant for tenant in tenants if not tenant.held]
    fraction = 0.0
    for wave in model.spec.rollout.waves:
        selectors = (wave.selector,) if wave.selector is not None else ()
        fraction = max(fraction, (wave.percent or 0) / 100)
        begun: list[TenantFact] = []
        rest: list[TenantFact] = []
        for tenant in left:
            reached = is_reached(selectors, fraction, tenant.namespace, tenant.name, tenant.labels)
            (begun if reached else rest).append(tenant)
        groups.append(begun)
        left = rest
    return groups


def _waves(
    model: EmbeddingModel, facts: ModelFacts, candidate: RevisionStatus, groups: Sequence[Load]
) -> tuple[WaveForecast, ...]:
    """Each wave with the moment of its end; a wave's soak is over before the next one begins."""
    found: list[WaveForecast] = []
    finish: int | None = 0
    for wave, group in zip(model.spec.rollout.waves, groups, strict=True):
        took = _seconds(model, facts, group, candidate.revision)
        finish = None if finish is None or took is None else finish + took
        found.append(
            WaveForecast(
                name=wave.name, tenants=group.tenants, documents=group.documents, seconds=took, finish_seconds=finish
            )
        )
        soak = math.ceil(parse_duration(wave.soak).total_seconds()) if wave.soak is not None else 0
        finish = None if finish is None else finish + soak
    return tuple(found)


def _seconds(model: EmbeddingModel, facts: ModelFacts, load: Load, revision: str | None) -> int | None:
    """The most that rebuilding these tenants takes, so many at one time; None where no rate was measured.

    Whoever is free takes the next: such a schedule ends by ``sum/k + longest·(1 − 1/k)`` whatever the order is
    (R. L. Graham, Bounds on multiprocessing timing anomalies, 1969).
    """
    if not load.embedded:
        return 0
    rate = best_rate(facts.rates, revision)
    if rate is None:
        return None
    total = load.embedded * facts.settle_seconds + load.documents / rate.slowest
    longest = facts.settle_seconds + load.largest / rate.slowest
    at_once = _at_once(model, facts)
    return rounded_up(total / at_once + longest * (1 - 1 / at_once))


def _at_once(model: EmbeddingModel, facts: ModelFacts) -> int:
    return max(1, min(model.spec.rollout.max_concurrent_reindexes, facts.most_reindexes))


def _seconds_basis(model: EmbeddingModel, facts: ModelFacts, candidate: RevisionStatus) -> str:
    rate = best_rate(facts.rates, candidate.revision)
    if rate is None:
        return unmeasured(candidate.revision)
    return (
        f"{measured_on(rate, candidate.revision, facts.settle_seconds)} and every soak are in it, at most "
        f"{_at_once(model, facts)} at one time; waiting for approval and for other models' rebuilds is not"
    )


def _cost(model: EmbeddingModel, facts: ModelFacts, documents: int, revision: str | None) -> Cost:
    template = model.spec.engine.worker.pod_template
    return cost_of_rebuild(documents, facts.rates, revision, facts.prices, template, facts.worker_labels)


def _tells_the_same(before: RolloutPlanStatus, plan: RolloutPlanStatus) -> bool:
    """Whether nothing to decide by has moved: how many each wave begins, 1 % of the documents, what is known."""
    if [(wave.name, wave.tenants) for wave in before.waves] != [(wave.name, wave.tenants) for wave in plan.waves]:
        return False
    known = [
        (item.seconds is None, item.gpu_seconds is None, item.cost_basis, item.space_change) for item in (before, plan)
    ]
    return known[0] == known[1] and not moved(before.documents, plan.documents)
