"""Models, facts and verdicts that the rollout's tests are made from."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from searchops.api.meta import format_time
from searchops.api.observed import JobState, PoolRegistration, ServerState
from searchops.api.retrieval import BUILTIN_PROFILES
from searchops.api.tasks import AccuracyReport, BuildResult, EvaluateResult
from searchops.api.v1alpha1.embedding_model import EmbeddingModel
from searchops.api.v1alpha1.embedding_model_status import (
    EmbeddingModelStatus,
    EvidenceReference,
    RejectedStatus,
    RevisionStatus,
    VerdictStatus,
    WaveStatus,
)
from searchops.planning.conditions import find
from searchops.planning.model_facts import (
    CreateJob,
    DeleteJob,
    EmitEvent,
    JobFacts,
    LoadModel,
    ModelAction,
    ModelFacts,
    ModelPlan,
    PoolFacts,
    TenantFact,
    UnloadModel,
)
from searchops.planning.names import FINALIZER, model_parts, revision_name
from searchops.planning.rollout import plan_model
from searchops.planning.rollout_choice import desired_of, gate_digest, gate_passed
from searchops.planning.rollout_orders import build_job_name, gate_job_name, reevaluation_job_name

if TYPE_CHECKING:
    from searchops.planning.jobs import JobOrder

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DIGESTS = {letter: f"sha256:{letter * 64}" for letter in "abcdef"}
TRITON = "2.51.0"
HOLDOUT = {"name": "core", "uri": "s3://holdouts/core/1.0.0", "digest": DIGESTS["f"]}


def later(**delta: float) -> datetime:
    return NOW + timedelta(**delta)


def at(**delta: float) -> str:
    return format_time(later(**delta))


def make_model(digest: str = "a", status: EmbeddingModelStatus | None = None, **spec: Any) -> EmbeddingModel:
    metadata = {
        "name": "shop",
        "uid": "uid-1",
        "generation": 7,
        "finalizers": [FINALIZER],
        **spec.pop("metadata", {}),
    }
    raw = {
        "metadata": metadata,
        "spec": {
            "source": {"uri": f"s3://models/{digest}", "digest": DIGESTS[digest]},
            "engine": {"worker": {"podTemplate": "gpu"}},
            "serving": {"pool": "default", "canaryPool": "canary"},
            "gate": {"holdouts": [HOLDOUT], "worker": {"podTemplate": "cpu"}, **spec.pop("gate", {})},
            "rollout": {"waves": [{"name": "all", "percent": 100}], **spec.pop("rollout", {})},
            **spec,
        },
        "status": (status or EmbeddingModelStatus()).to_wire(),
    }
    return EmbeddingModel.model_validate(raw)


def profile_of(model: EmbeddingModel | None = None) -> str:
    return desired_of(model or make_model()).profile


def chosen(digest: str = "a", number: int = 1, **update: Any) -> RevisionStatus:
    """A candidate that was chosen and nothing more."""
    fields: dict[str, Any] = {
        "revision": revision_name("shop", number, DIGESTS[digest]),
        "number": number,
        "digest": DIGESTS[digest],
        "profile_digest": profile_of(),
    }
    return RevisionStatus.model_validate({**fields, **update})


def built(digest: str = "a", number: int = 1, **update: Any) -> RevisionStatus:
    """A revision as its build left it."""
    revision = revision_name("shop", number, DIGESTS[digest])
    fields: dict[str, Any] = {
        "space": f"space{digest}",
        "space_change": "Incompatible",
        "founder": revision,
        "dimension": 384,
        "max_tokens": 128,
        "engine_key": f"engine-{digest}",
        "manifest_digest": "m" * 8,
        "backend": "ONNXRuntime FP32",
        "anchors": f"s3://artifacts/anchors-{digest}",
        "probes": f"s3://artifacts/probes-{digest}",
    }
    return chosen(digest, number, **{**fields, **update})


def promoted(digest: str = "a", number: int = 1, **update: Any) -> RevisionStatus:
    return built(digest, number, **{"promoted_at": at(days=-2), **update})


def server(url: str, *revisions: str, **update: Any) -> ServerState:
    models = {part: "READY" for revision in revisions for part in model_parts(revision)}
    return replace(ServerState(url, f"{url}:8001", True, models=models, version=TRITON), **update)


def pool(name: str, *servers: ServerState, inference: dict[tuple[str, str], str] | None = None) -> PoolFacts:
    registration = PoolRegistration(
        name,
        tuple(item.url for item in servers),
        tuple(item.grpc_url for item in servers),
        f"/repo/{name}",
        "cpu",
    )
    good = {
        (item.url, model): ""
        for item in servers
        for model in item.models
        if not model.endswith(("-enc", "-tok")) and item.ready(model)
    }
    return PoolFacts(registration, servers, {**good, **(inference or {})})


def facts_of(model: EmbeddingModel, **update: Any) -> ModelFacts:
    """Facts in which every server holds what the status names (the candidate where it may be), and no Job is there."""
    status = model.status
    known = [item for item in (status.active, status.candidate, *status.retiring) if item is not None]
    let_through = gate_passed(status) and model.spec.gate.mode == "Enforce"
    names = [item.revision for item in known if item.engine_key and (item != status.candidate or let_through)]
    on_canary = [item.revision for item in (status.active, status.candidate) if item is not None and item.engine_key]
    candidate, build, gate, again = status.candidate, None, None, None
    if candidate is not None and candidate.engine_key is None:
        build = JobFacts(build_job_name(model, candidate))
    elif candidate is not None:
        gate = JobFacts(gate_job_name(model, status, gate_digest(model.spec)))
    elif status.active is not None and status.reevaluation is not None and status.reevaluation.asked is not None:
        again = JobFacts(reevaluation_job_name(model, status.active, status.reevaluation.asked))
    given: dict[str, Any] = {
        "serving": pool("default", server("s1", *names), server("s2", *names)),
        "canary": pool("canary", server("c1", *on_canary)),
        "build": build,
        "gate": gate,
        "reevaluation": again,
        **update,
    }
    return ModelFacts(artifacts="s3://artifacts", profile=BUILTIN_PROFILES["default"], **given)


def job(facts: JobFacts | None, **state: Any) -> JobFacts:
    assert facts is not None
    return replace(facts, state=JobState(facts.name, "job-uid", **state))


def build_result(revision: str, **update: Any) -> BuildResult:
    fields: dict[str, Any] = {
        "revision": revision,
        "backend": "ONNXRuntime",
        "precision": "FP32",
        "engine_key": "engine-a",
        "manifest_digest": "m" * 8,
        "fingerprint": "print",
        "dimension": 384,
        "max_tokens": 128,
        "anchors": "s3://artifacts/anchors-new",
        "probes": "s3://artifacts/probes-new",
        "accuracy": AccuracyReport(texts=300, min_cosine=0.99999, mean_cosine=1.0),
    }
    return BuildResult.model_validate({**fields, **update})


def verdict(revision: str, outcome: str, **update: Any) -> EvaluateResult:
    fields: dict[str, Any] = {
        "revision": revision,
        "outcome": outcome,
        "message": f"it is {outcome}",
        "lost": 3,
        "of": 312,
        "loss_bound": "0.0096",
        "ndcg_delta": "+0.004",
        "ndcg_interval": ["-0.001", "+0.009"],
        "evidence_uri": "s3://artifacts/evidence/1.json",
        "evidence_digest": DIGESTS["e"],
    }
    return EvaluateResult.model_validate({**fields, **update})


def tenant(name: str, bound: RevisionStatus | None = None, **update: Any) -> TenantFact:
    return TenantFact("shops", name, {}, bound.revision if bound is not None else None, **update)


def status_of(plan: ModelPlan) -> EmbeddingModelStatus:
    """The planned status as the API server gives it back."""
    assert plan.status is not None
    return EmbeddingModelStatus.model_validate(plan.status.to_wire())


def after(model: EmbeddingModel, plan: ModelPlan) -> EmbeddingModel:
    return model.model_copy(update={"status": status_of(plan)})


def condition(plan: ModelPlan, kind: str) -> tuple[str, str]:
    assert plan.status is not None
    found = find(plan.status.conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found.status, found.reason


def message(plan: ModelPlan, kind: str) -> str:
    assert plan.status is not None
    found = find(plan.status.conditions, kind)
    assert found is not None, f"no condition {kind}"
    return found.message


def told(actions: tuple[ModelAction, ...]) -> list[str]:
    """Actions in short, in their order."""
    short = []
    for action in actions:
        match action:
            case LoadModel(server=where, model=name):
                short.append(f"load {where.url} {name}")
            case UnloadModel(server=where, model=name):
                short.append(f"unload {where.url} {name}")
            case EmitEvent(reason=reason):
                short.append(f"event {reason}")
            case DeleteJob():
                short.append("DeleteJob")
            case _:
                short.append(type(action).__name__)
    return short


def steady(model: EmbeddingModel, facts: ModelFacts, now: datetime = NOW) -> ModelPlan:
    """The plan, after showing that a second pass over the same facts has nothing to write."""
    first = plan_model(model, facts, now)
    again = after(model, first)
    second = plan_model(again, facts, now + timedelta(seconds=1))
    assert second.status is not None
    assert second.status.to_wire() == again.status.to_wire()
    return first


TEMPLATE = {
    "metadata": {"name": "gpu", "labels": {"searchops.dev/worker-for": "build", "kueue.x-k8s.io/queue-name": "q"}},
    "template": {
        "metadata": {"labels": {"team": "search"}},
        "spec": {
            "serviceAccountName": "pods",
            "containers": [
                {"name": "worker", "image": "worker:1", "args": ["x"], "env": [{"name": "A", "value": "1"}]},
                {"name": "sidecar", "image": "side:1"},
            ],
        },
    },
}


def building(**update: Any) -> EmbeddingModelStatus:
    return EmbeddingModelStatus.model_validate({"candidate": chosen(), "next_number": 2, **update})


def gating(**update: Any) -> EmbeddingModelStatus:
    fields = {"active": promoted(), "candidate": built("b", 2), "next_number": 3, **update}
    return EmbeddingModelStatus.model_validate(fields)


def order_of(plan: ModelPlan) -> JobOrder:
    found = [action for action in plan.actions if isinstance(action, CreateJob)]
    assert len(found) == 1
    return found[0].order


def recorded(outcome: str) -> VerdictStatus:
    return VerdictStatus.model_validate(
        {
            "revision": built("b", 2).revision,
            "change": "Model",
            "outcome": outcome,
            "lost": 3,
            "of": 312,
            "loss_bound": "0.0096",
            "ndcg_delta": "+0.004",
            "ndcg_interval": ("-0.001", "+0.009"),
            "message": f"it is {outcome}",
            "evidence": {"uri": "s3://artifacts/evidence/1.json", "digest": DIGESTS["e"]},
        }
    )


def answered(outcome: str, spec: dict[str, Any], digest: str = "b") -> ModelPlan:
    """The plan that follows on a verdict which has been told and written."""
    model = make_model(digest, gating(), **spec)
    facts = facts_of(model)
    result = verdict(built("b", 2).revision, outcome)
    facts = replace(facts, gate=job(facts.gate, complete=True), gate_result=result)
    plan = plan_model(model, facts, NOW)
    kept = [] if outcome == "Invalid" else ["WriteState"]
    assert told(plan.actions) == [*kept, "event VerdictReached"]
    assert (status_of(plan).verdict, plan.requeue_after) == (recorded(outcome), 0.0)
    return plan_model(after(model, plan), facts, NOW)


WAVE = WaveStatus(name="all", index=0, started_at=at(), fraction="1")


PASS = VerdictStatus(revision=built("b", 2).revision, outcome="Pass", message="it is Pass")


def rolling(**update: Any) -> EmbeddingModelStatus:
    """r1 is active, r2 is in its wave."""
    fields: dict[str, Any] = {
        "active": promoted(),
        "candidate": built("b", 2),
        "verdict": PASS,
        "wave": WAVE,
        "next_number": 3,
    }
    return EmbeddingModelStatus.model_validate({**fields, **update})


def refused(digest: str, number: int, token: str = "") -> RejectedStatus:
    return RejectedStatus(
        revision=built(digest, number).revision,
        digest=DIGESTS[digest],
        gate=desired_of(make_model()).gate,
        outcome="Regressed",
        reason="25 lost",
        retry_token=token,
        at=at(),
    )


CANARY = {"matchLabels": {"tier": "canary"}}


THREE: list[dict[str, Any]] = [
    {"name": "canary", "selector": CANARY, "soak": "30m"},
    {"name": "half", "percent": 50, "soak": "1h"},
    {"name": "all", "percent": 100},
]


NAME = built("b", 2).revision


PASS_WITH_EVIDENCE = PASS.model_copy(update={"evidence": EvidenceReference(uri="s3://e/2", digest=DIGESTS["e"])})


def passed(**update: Any) -> EmbeddingModelStatus:
    """r2 has passed the gate; no wave has started."""
    fields = {
        "active": promoted(),
        "candidate": built("b", 2),
        "verdict": PASS_WITH_EVIDENCE,
        "next_number": 3,
        **update,
    }
    return EmbeddingModelStatus.model_validate(fields)


def wave(index: int, fraction: str, started: str = at(), **update: Any) -> WaveStatus:
    fields = {"name": THREE[index]["name"], "index": index, "started_at": started, "fraction": fraction, **update}
    return WaveStatus.model_validate({"selectors": (CANARY,), **fields})


def model_of(status: EmbeddingModelStatus, **rollout: Any) -> EmbeddingModel:
    metadata = rollout.pop("metadata", {})
    return make_model("b", status, rollout={"waves": THREE, **rollout}, metadata=metadata)


def planned(model: EmbeddingModel, *tenants: TenantFact) -> ModelPlan:
    return plan_model(model, facts_of(model, tenants=tenants, gate=None), NOW)


def canary(name: str, bound: bool = False, **update: Any) -> TenantFact:
    return replace(tenant(name, built("b", 2) if bound else promoted(), **update), labels={"tier": "canary"})
