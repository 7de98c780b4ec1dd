"""ReindexJobs and facts that the reindex planner's tests are made from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from searchops.api.meta import format_time
from searchops.api.observed import CellRegistration, CollectionState, JobState, RecallSample
from searchops.api.retrieval import BUILTIN_PROFILES, Binding
from searchops.api.tasks import SliceResult
from searchops.api.v1alpha1.reindex_job import ReindexJob, ReindexJobStatus
from searchops.api.v1alpha1.search_tenant import SearchTenant
from searchops.planning.conditions import find
from searchops.planning.names import FINALIZER
from searchops.planning.reindex import plan_reindex
from searchops.planning.reindex_facts import ReindexFacts, ReindexPlan
from searchops.planning.reindex_report import worker_name

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
REVISION = "shop-r2-bbbbbbbb"
ALIAS = "prod.shops.acme"
CELL = CellRegistration("eu-1", {}, ("http://cell:6333",), 6334, 1000, api_key="k" * 40)
PENDING = Binding(
    model="shop",
    revision=REVISION,
    encoder=REVISION,
    vector="d-space",
    dimension=384,
    manifest_digest="m" * 8,
    profile=BUILTIN_PROFILES["default"],
    side=f"{ALIAS}@a",
)


def later(**delta: float) -> datetime:
    return NOW + timedelta(**delta)


def at(**delta: float) -> str:
    return format_time(later(**delta))


def make_job(status: ReindexJobStatus | None = None, **spec: Any) -> ReindexJob:
    metadata = {
        "name": "acme-1",
        "namespace": "shops",
        "uid": "uid-rj",
        "generation": 1,
        "finalizers": [FINALIZER],
        **spec.pop("metadata", {}),
    }
    fields = {"tenant": "acme", "revision": REVISION, "slices": 2, "worker": {"podTemplate": "cpu"}, **spec}
    return ReindexJob.model_validate(
        {"metadata": metadata, "spec": fields, "status": (status or ReindexJobStatus()).to_wire()}
    )


NAME = worker_name(make_job().metadata)


def make_tenant(named: str | None = "acme-1", bound: str | None = None) -> SearchTenant:
    status: dict[str, Any] = {"cell": "eu-1"}
    if named is not None:
        status["rebuild"] = {"reindexJob": named, "reason": "SpaceChanged", "attempt": 1, "startedAt": at()}
    if bound is not None:
        status["binding"] = {"model": "shop", "revision": bound, "analyser": "a", "profile": "default", "since": at()}
    return SearchTenant.model_validate(
        {
            "metadata": {"name": "acme", "namespace": "shops", "uid": "uid-t"},
            "spec": {
                "model": {"name": "shop"},
                "fields": [{"name": "title", "type": "text", "role": "Title"}],
                "languages": ["en"],
            },
            "status": status,
        }
    )


def collection(generation: int, **update: Any) -> CollectionState:
    fresh = CollectionState(f"{ALIAS}@g{generation}", 0, {"d-space": 384}, frozenset(), {}, 1, 1, None, {})
    return replace(fresh, **update)


def make_facts(**update: Any) -> ReindexFacts:
    """A prepared second generation with 100 documents of which 40 are there."""
    fields: dict[str, Any] = {
        "tenant": make_tenant(),
        "artifacts": "s3://artifacts",
        "cell": CELL,
        "pending": PENDING,
        "source": collection(1),
        "target": collection(2),
        "documents": 100,
        "lacking": 60,
        "servers": ("triton:8001",),
        **update,
    }
    return ReindexFacts(**fields)


def worker(**state: Any) -> JobState:
    return JobState(NAME, "uid-job", **state)


def slices(*updates: dict[str, Any]) -> tuple[SliceResult, ...]:
    full = {"documents": 50, "embedded": 50, "sampled": 24, "sample_min_cosine": 0.99999, "seconds": 3.0}
    return tuple(SliceResult.model_validate({"slice": index, **full, **one}) for index, one in enumerate(updates))


def done(**update: Any) -> ReindexFacts:
    """The Job is complete and everything is as it should be."""
    fields = {
        "worker": worker(complete=True, completion_time=at()),
        "lacking": 0,
        "slices": slices({}, {}),
        "recall": RecallSample(50, 10, 500, 490),
        **update,
    }
    return make_facts(**fields)


def status_of(plan: ReindexPlan) -> ReindexJobStatus:
    assert plan.status is not None
    return ReindexJobStatus.model_validate(plan.status.to_wire())


def after(job: ReindexJob, plan: ReindexPlan) -> ReindexJob:
    return job.model_copy(update={"status": status_of(plan)})


def condition(plan: ReindexPlan, kind: str) -> tuple[str, str]:
    assert plan.status is not None
    found = find(plan.status.conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found.status, found.reason


def message(plan: ReindexPlan, kind: str) -> str:
    assert plan.status is not None
    found = find(plan.status.conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found.message


def steady(job: ReindexJob, facts: ReindexFacts, now: datetime = NOW) -> ReindexPlan:
    """The plan, after showing that a second pass over the same facts has nothing to write."""
    first = plan_reindex(job, facts, now)
    again = after(job, first)
    second = plan_reindex(again, facts, now + timedelta(seconds=1))
    if again.status.phase in ("Switched", "Failed", "Cancelled"):
        assert second.status is None
    else:
        assert second.status is not None
        assert second.status.to_wire() == again.status.to_wire()
    return first


def embedding() -> ReindexJob:
    """A job whose worker was made at NOW."""
    job = make_job()
    return after(job, plan_reindex(job, make_facts(), NOW))


def verified() -> ReindexJob:
    job = embedding()
    return after(job, plan_reindex(job, done(), NOW))
