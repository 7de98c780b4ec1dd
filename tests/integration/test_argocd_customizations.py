"""Health and actions in Lua, judged by Argo CD itself: every reason, every phase, and what each action changes."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml

from searchops.api.v1alpha1 import ReindexJob
from searchops.api.v1alpha1.embedding_model import ModelReason, Rollout
from searchops.api.v1alpha1.embedding_model_status import EmbeddingModelStatus, Phase, ServersStatus, ServerTrouble
from searchops.api.v1alpha1.reindex_job import JobPhase, ReindexReason
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.planning.names import APPROVE_ANNOTATION, PAUSE_ANNOTATION, RETRY_ANNOTATION, ROLLBACK_ANNOTATION
from searchops.planning.reindex_request import approval_word
from searchops.planning.rollout import plan_model
from searchops.planning.server_troubles import MAX_RELOADS
from searchops_sandbox.binaries import ensure_binaries
from unit.planning import rollout_cases as case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from searchops.api.v1alpha1.embedding_model import EmbeddingModel
    from searchops.planning.model_facts import ModelFacts

    Helm = Callable[..., str]

pytestmark = pytest.mark.integration

Json = dict[str, Any]
REVISION = "shop-encoder-r2-782efd74"
ACTIVE = "shop-encoder-r1-d3836a1d"
DEGRADED_MODEL = {
    ModelReason.ACCURACY_FAILED,
    ModelReason.BAD_CHECKPOINT,
    ModelReason.BREAKER_OPEN,
    ModelReason.BUILD_FAILED,
    ModelReason.DIGEST_MISMATCH,
    ModelReason.GATE_INVALID,
    ModelReason.INVALID_SPEC,
    ModelReason.LOAD_FAILED,
    ModelReason.POD_TEMPLATE_NOT_ALLOWED,
    ModelReason.POD_TEMPLATE_NOT_FOUND,
    ModelReason.POOL_NOT_FOUND,
    ModelReason.REGRESSED,
    ModelReason.REJECTED,
    ModelReason.ROLLED_BACK,
    ModelReason.SIGNAL_DEGRADED,
    ModelReason.SOURCE_NOT_ALLOWED,
    ModelReason.STATE_UNKNOWN,
    ModelReason.VERIFY_FAILED,
}
#: In a stage's own condition: waited for until the condition Progressing says that the operator has given up.
TRIED_AGAIN = {
    ModelReason.BUILD_FAILED,
    ModelReason.GATE_INVALID,
    ModelReason.LOAD_FAILED,
    ModelReason.VERIFY_FAILED,
}
SUSPENDED_MODEL = {
    ModelReason.AWAITING_APPROVAL,
    ModelReason.DRY_RUN,
    ModelReason.INCONCLUSIVE,
    ModelReason.PAUSED,
}
DEGRADED_TENANT = {
    TenantReason.ADOPTION_REFUSED,
    TenantReason.CELL_IDENTITY_MISMATCH,
    TenantReason.CELL_KEY_TOO_WEAK,
    TenantReason.CELL_MISSING,
    TenantReason.CELL_TOO_OLD,
    TenantReason.COLLECTION_LOST,
    TenantReason.CONFLICT,
    TenantReason.INVALID_SPEC,
    TenantReason.ISOLATION_BROKEN,
    TenantReason.MODEL_NOT_FOUND,
    TenantReason.NO_CAPACITY,
    TenantReason.NO_MATCHING_CELL,
    TenantReason.NOT_SUPPORTED,
    TenantReason.PINNED_QUERIES_INVALID,
    TenantReason.PINNED_QUERIES_LOST,
    TenantReason.PINNED_QUERIES_UNDECIDED,
    TenantReason.REBUILD_FAILED,
    TenantReason.SEARCH_FAILED,
    TenantReason.SECRET_CONFLICT,
}
DEGRADED_JOB = {
    ReindexReason.INVALID_SPEC,
    ReindexReason.NOT_SUPPORTED,
    ReindexReason.POD_TEMPLATE_NOT_ALLOWED,
    ReindexReason.POD_TEMPLATE_NOT_FOUND,
    ReindexReason.SOURCE_NOT_ALLOWED,
    ReindexReason.TENANT_NOT_FOUND,
}
SUSPENDED_JOB = {ReindexReason.AWAITING_APPROVAL, ReindexReason.SUSPENDED}


class ArgoCd:
    """Argo CD's command line over our entries of its ConfigMap, as the chart renders them."""

    def __init__(self, helm: Helm, folder: Path) -> None:
        self._program = ensure_binaries(["argocd"])["argocd"]
        self._folder = folder
        rendered = helm(
            "template",
            "searchops",
            "charts/searchops",
            "--set",
            "settings.artifacts=s3://a/b",
            "--set",
            "argocd.enabled=true",
            "--show-only",
            "templates/argocd.yaml",
        )
        self.config: Json = yaml.safe_load(rendered)
        (folder / "cm.yaml").write_text(rendered)

    def health(self, objects: list[Json]) -> list[tuple[str, str]]:
        """Status and message of each; they are judged side by side."""
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(self._health, range(len(objects)), objects))

    def _health(self, number: int, document: Json) -> tuple[str, str]:
        said = self._run("health", document, number=number)
        match = re.fullmatch(r"STATUS: (\w+)\nMESSAGE: (.*)\n", said, re.DOTALL)
        assert match is not None, said
        return match[1], match[2].strip()

    def actions(self, document: Json) -> set[str]:
        """The actions that may be taken."""
        rows = [line.split() for line in self._run("list-actions", document).splitlines()]
        assert rows[0] == ["NAME", "DISABLED"], rows
        return {name for name, disabled in rows[1:] if disabled == "false"}

    def changes(self, document: Json, action: str) -> list[str]:
        """Lines of the document that the action adds or takes away, as diff marks them."""
        said = self._run("run-action", document, action)
        assert said.startswith("Following fields have been changed:"), said
        return [" ".join(line.split()) for line in said.splitlines() if line[:1] in ("<", ">")]

    def _run(self, verb: str, document: Json, *arguments: str, number: int = 0) -> str:
        path = self._folder / f"object-{verb}-{number}.yaml"
        path.write_text(yaml.safe_dump(document))
        done = subprocess.run(
            [
                str(self._program),
                "admin",
                "settings",
                "resource-overrides",
                verb,
                str(path),
                *arguments,
                "--argocd-cm-path",
                str(self._folder / "cm.yaml"),
            ],
            env={"ARGOCD_BINARY_NAME": "argocd", "HOME": str(self._folder), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def argocd(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> ArgoCd:
    return ArgoCd(helm, tmp_path_factory.mktemp("argocd"))


def condition(kind: str, status: str, reason: str, message: str = "said so") -> Json:
    return {"type": kind, "status": status, "reason": str(reason), "message": message}


def model(
    *conditions: Json, phase: str = "Rolling", candidate: str | None = REVISION, seen: int = 3, **status: Any
) -> Json:
    named: Json = {"candidate": {"revision": candidate, "number": 2}} if candidate is not None else {}
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "shop-encoder", "generation": 3, "annotations": {"team": "search"}},
        "spec": {"rollout": {"waves": [{"name": "canary"}, {"name": "half"}, {"name": "all"}]}},
        "status": {
            "observedGeneration": seen,
            "phase": phase,
            "conditions": list(conditions),
            "active": {"revision": ACTIVE, "number": 1},
            **named,
            **status,
        },
    }


def tenant(*conditions: Json, phase: str = "Progressing", paused: bool = False, seen: int = 3) -> Json:
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "SearchTenant",
        "metadata": {"name": "acme", "namespace": "shop", "generation": 3},
        "spec": {"paused": paused},
        "status": {"observedGeneration": seen, "phase": phase, "conditions": list(conditions)},
    }


def job(phase: str | None, *conditions: Json, seen: int = 3, spec: Json | None = None) -> Json:
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "ReindexJob",
        "metadata": {"name": "acme-move", "namespace": "shop", "generation": 3},
        "spec": {"tenant": "acme", "worker": {"podTemplate": "cpu"}, **(spec or {})},
        "status": {"observedGeneration": seen, "conditions": list(conditions), **({"phase": phase} if phase else {})},
    }


def stage(progressing: Json, phase: str, **status: Any) -> Json:
    """A rollout under way: Ready says that it is on its way, Progressing how far."""
    return model(condition("Ready", "False", "Progressing", "on its way"), progressing, phase=phase, **status)


SETTLED = condition("Ready", "True", "Promoted", f"{ACTIVE} is active")
PHASES: dict[str, tuple[Json, str]] = {
    "Pending": (model(condition("Ready", "False", "Waiting"), phase="Pending", candidate=None), "Progressing"),
    "Building": (stage(condition("Progressing", "True", "Building"), "Building"), "Progressing"),
    "Loading": (stage(condition("Progressing", "True", "Loading"), "Loading"), "Progressing"),
    "Verifying": (stage(condition("Progressing", "Unknown", "ArtifactsUnreadable"), "Verifying"), "Progressing"),
    "Gating": (stage(condition("Progressing", "True", "Gating"), "Gating"), "Progressing"),
    "AwaitingApproval": (
        stage(condition("Progressing", "False", "AwaitingApproval"), "AwaitingApproval"),
        "Suspended",
    ),
    "Rolling": (stage(condition("Progressing", "True", "Rolling"), "Rolling"), "Progressing"),
    "Soaking": (stage(condition("Progressing", "True", "Soaking"), "Soaking"), "Progressing"),
    "Promoted": (
        model(SETTLED, phase="Promoted", candidate=None, tenants={"total": 6, "bound": 4, "held": 2}),
        "Healthy",
    ),
    "RolledBack": (
        model(condition("Ready", "False", "Rejected"), phase="RolledBack", candidate=None),
        "Degraded",
    ),
    "Paused": (
        stage(condition("Progressing", "False", "Paused"), "Paused"),
        "Suspended",
    ),
}


def test_every_phase_of_a_model(argocd: ArgoCd) -> None:
    assert set(PHASES) == set(get_args(Phase))
    seen = argocd.health([document for document, _ in PHASES.values()])
    assert {name: status for name, (status, _) in zip(PHASES, seen, strict=True)} == {
        name: wanted for name, (_, wanted) in PHASES.items()
    }


@pytest.mark.parametrize("kind", ["Ready", "Progressing", "ServersInSync"])
def test_every_reason_of_a_model(argocd: ArgoCd, kind: str) -> None:
    """Whatever condition carries it; on the way it is Progressing unless it says that a person is needed."""
    told = DEGRADED_MODEL | SUSPENDED_MODEL | {ModelReason.OUT_OF_SYNC, ModelReason.LOADING, ModelReason.WAITING}
    reasons = list(ModelReason) if kind == "Ready" else sorted(told)
    on_its_way = () if kind == "Ready" else (condition("Ready", "False", "Progressing", "on its way"),)
    seen = argocd.health([model(*on_its_way, condition(kind, "False", reason)) for reason in reasons])
    for reason, (status, message) in zip(reasons, seen, strict=True):
        wanted = "Degraded" if reason in DEGRADED_MODEL else "Suspended" if reason in SUSPENDED_MODEL else "Progressing"
        if kind == "ServersInSync" and reason in TRIED_AGAIN:
            wanted = "Progressing"
        assert status == wanted, reason
        if wanted != "Progressing":
            assert message == f"{reason}: said so"


def as_planned(model_of: EmbeddingModel, facts: ModelFacts) -> Json:
    """The object with the status that the planner writes for it, as the API server gives it."""
    plan = plan_model(model_of, facts, case.NOW)
    assert plan.status is not None
    return {
        "apiVersion": "searchops.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "shop", "generation": 7},
        "spec": model_of.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "status": plan.status.to_wire(),
    }


def with_trouble(reason: str, *, attempts: int = 0, reloads: int = 0) -> EmbeddingModel:
    """A candidate that one canary server does not serve."""
    trouble = ServerTrouble(
        server="c1",
        revision=case.built("b", 2).revision,
        reason=reason,
        message="seen before",
        since=case.at(minutes=-9),
        attempts=attempts,
        reloads=reloads,
    )
    return case.make_model("b", case.gating(servers=ServersStatus(total=3, in_sync=2, failing=(trouble,))))


def unserved(gating: EmbeddingModel, outcome: str | None) -> ModelFacts:
    """Facts in which the canary server lacks the candidate, or answers an inference with this outcome."""
    names = [case.promoted().revision, *([case.built("b", 2).revision] if outcome is not None else [])]
    canary = case.pool("canary", case.server("c1", *names))
    if outcome is not None:
        canary = replace(canary, inference={**canary.inference, ("c1", names[-1]): outcome})
    return case.facts_of(gating, canary=canary)


def test_what_the_operator_tries_again_by_itself_is_waited_for_until_it_gives_up(argocd: ArgoCd) -> None:
    gating, building = case.make_model("b", case.gating()), case.make_model(status=case.building())
    facts, third = case.facts_of(building), case.make_model(status=case.building(candidate=case.chosen(attempt=3)))
    last = case.facts_of(third)
    judging, judging_facts = case.make_model("b", case.gating()), case.facts_of(case.make_model("b", case.gating()))
    timed_out, wrong = "inference fails: timed out", "cosine 0.31"
    rows = [
        (as_planned(gating, unserved(gating, timed_out)), "Progressing"),
        (as_planned(gating, unserved(gating, wrong)), "Progressing"),
        (as_planned(spent := with_trouble("WrongVectors", reloads=MAX_RELOADS), unserved(spent, wrong)), "Degraded"),
        (as_planned(gating, unserved(gating, None)), "Progressing"),
        (as_planned(spent := with_trouble("NotLoaded", attempts=2), unserved(spent, None)), "Degraded"),
        (as_planned(building, replace(facts, build=case.job(facts.build, complete=True))), "Progressing"),
        (as_planned(third, replace(last, build=case.job(last.build, complete=True))), "Degraded"),
        (as_planned(judging, replace(judging_facts, gate=case.job(judging_facts.gate, complete=True))), "Progressing"),
        (as_planned(gating, case.facts_of(gating, canary=None)), "Degraded"),
    ]
    seen = argocd.health([document for document, _ in rows])
    assert [(number, status) for number, (status, _) in enumerate(seen)] == [
        (number, wanted) for number, (_, wanted) in enumerate(rows)
    ], seen
    assert seen[2][1].startswith("VerifyFailed: servers were tried in vain")
    assert seen[4][1].startswith("LoadFailed: servers were tried in vain")


def test_a_held_tenant_cannot_stand_in_for_one_that_is_not_bound(argocd: ArgoCd) -> None:
    active = case.promoted()
    settled = case.make_model("a", EmbeddingModelStatus(active=active, next_number=2))
    held = tuple(case.tenant(f"held{n}", active, held=True) for n in range(2))
    unbound = tuple(case.tenant(f"free{n}") for n in range(2))
    bound = tuple(case.tenant(f"free{n}", active) for n in range(2))
    rows = [as_planned(settled, case.facts_of(settled, tenants=tenants)) for tenants in (held + unbound, held + bound)]
    waited, whole = argocd.health(rows)
    assert waited[0] == "Progressing"
    assert waited[1].startswith("0 of 2 tenants are bound")
    assert whole[0] == "Healthy"


def test_a_model_whose_pool_is_gone_is_degraded_also_while_nothing_is_rolled_out(argocd: ArgoCd) -> None:
    settled = case.make_model("a", EmbeddingModelStatus(active=case.promoted(), next_number=2))
    gone = as_planned(settled, case.facts_of(settled, serving=None, canary=None))
    ((status, message),) = argocd.health([gone])
    assert (status, message.startswith("PoolNotFound: ")) == ("Degraded", True)


def test_a_worse_condition_wins_and_what_speaks_of_no_rollout_is_passed_over(argocd: ArgoCd) -> None:
    rows = [
        (model(condition("Ready", "False", "Paused"), condition("ServersInSync", "False", "PoolNotFound")), "Degraded"),
        (
            model(condition("GatePassed", "True", "Regressed"), condition("Ready", "False", "Progressing")),
            "Progressing",
        ),
        (model(SETTLED, condition("RollbackReady", "False", "NoEarlierRevision"), candidate=None), "Healthy"),
        (model(SETTLED, condition("ServersInSync", "False", "OutOfSync"), candidate=None), "Healthy"),
        (model(SETTLED, candidate=None, tenants={"total": 6, "bound": 3, "held": 2}), "Progressing"),
        (model(condition("Ready", "Unknown", "Unreachable")), "Progressing"),
        (model(condition("Ready", "False", "ReasonOfALaterVersion")), "Progressing"),
        (model(condition("Ready", "True", "Promoted"), seen=2), "Progressing"),
        (model(), "Progressing"),
        ({**model(), "status": {}}, "Progressing"),
    ]
    seen = argocd.health([document for document, _ in rows])
    assert [status for status, _ in seen] == [wanted for _, wanted in rows]
    assert "3 of 4 tenants are bound" in seen[4][1]
    assert "acted on generation 2" in seen[7][1]
    assert "acted on generation 0" in seen[9][1]


def test_every_reason_of_a_tenant(argocd: ArgoCd) -> None:
    reasons = list(TenantReason)
    seen = argocd.health([tenant(condition("Ready", "False", reason)) for reason in reasons])
    for reason, (status, message) in zip(reasons, seen, strict=True):
        wanted = (
            "Degraded" if reason in DEGRADED_TENANT else "Suspended" if reason == TenantReason.PAUSED else "Progressing"
        )
        assert status == wanted, reason
        assert message.endswith("said so")


def test_a_tenant_is_healthy_only_when_it_is_ready_in_this_generation(argocd: ArgoCd) -> None:
    ready = condition("Ready", "True", "Ready")
    rows = [
        (tenant(ready, condition("BackupFresh", "False", "BackupStale"), phase="Ready"), "Healthy"),
        (tenant(ready, phase="Ready", seen=2), "Progressing"),
        (tenant(ready, phase="Paused", paused=True), "Suspended"),
        (tenant(condition("Ready", "False", "IsolationBroken"), phase="Paused", paused=True), "Degraded"),
        (tenant(condition("Ready", "Unknown", "CellUnreachable")), "Progressing"),
        (tenant(condition("Placed", "True", "Placed")), "Progressing"),
        ({**tenant(), "status": {}}, "Progressing"),
    ]
    seen = argocd.health([document for document, _ in rows])
    assert [status for status, _ in seen] == [wanted for _, wanted in rows]


def test_every_phase_and_reason_of_a_reindex_job(argocd: ArgoCd) -> None:
    ends = {"Switched": "Healthy", "Failed": "Degraded", "Cancelled": "Degraded"}
    phases = list(get_args(JobPhase))
    seen = argocd.health([job(phase, condition("Ready", "False", "Waiting", "the message")) for phase in phases])
    for phase, (status, message) in zip(phases, seen, strict=True):
        assert status == ends.get(phase, "Progressing"), phase
        if phase != "Switched":
            assert message == "Waiting: the message"
    reasons = list(ReindexReason)
    seen = argocd.health([job("Embedding", condition("Ready", "False", reason)) for reason in reasons])
    for reason, (status, _) in zip(reasons, seen, strict=True):
        wanted = "Degraded" if reason in DEGRADED_JOB else "Suspended" if reason in SUSPENDED_JOB else "Progressing"
        assert status == wanted, reason
    rest = [job(None), job("Switched", seen=2), {**job(None), "status": {}}]
    assert [status for status, _ in argocd.health(rest)] == ["Progressing"] * 3


def test_an_action_on_a_model_sets_one_annotation_and_nothing_else(argocd: ArgoCd) -> None:
    waiting = stage(condition("Progressing", "False", "AwaitingApproval"), "AwaitingApproval")
    assert argocd.actions(waiting) == {"approve", "pause", "rollback"}
    assert argocd.changes(waiting, "approve") == [f"> {APPROVE_ANNOTATION}: {REVISION}"]
    assert argocd.changes(waiting, "pause") == [f'> {PAUSE_ANNOTATION}: "true"']
    assert argocd.changes(waiting, "rollback") == [f"> {ROLLBACK_ANNOTATION}: {REVISION}"]
    settled = PHASES["Promoted"][0]
    assert argocd.actions(settled) == {"pause", "rollback"}
    assert argocd.changes(settled, "rollback") == [f"> {ROLLBACK_ANNOTATION}: {ACTIVE}"]
    refused = PHASES["RolledBack"][0]
    assert argocd.actions(refused) == {"retry", "pause", "rollback"}
    (retried,) = argocd.changes(refused, "retry")
    assert re.fullmatch(rf"> {RETRY_ANNOTATION}: 20\d\d-\d\d-\d\dT\d\d-\d\d-\d\dZ", retried)


def test_a_pause_by_action_is_lifted_by_action(argocd: ArgoCd) -> None:
    held = stage(condition("Progressing", "False", "Paused"), "Paused")
    held["metadata"]["annotations"][PAUSE_ANNOTATION] = "true"
    assert argocd.actions(held) == {"resume", "retry", "rollback"}
    assert argocd.changes(held, "resume") == [f'< {PAUSE_ANNOTATION}: "true"']


@pytest.mark.parametrize(
    ("approval", "wave", "word"),
    [
        ("BeforeFirstWave", None, REVISION),
        ("BeforeEachWave", None, REVISION),
        ("BeforeEachWave", {"index": 0, "fraction": "0.05"}, f"{REVISION}/1"),
        ("BeforeEachWave", {"index": 1, "fraction": "0.5"}, f"{REVISION}/2"),
    ],
)
def test_what_is_approved_is_the_wave_that_waits(argocd: ArgoCd, approval: str, wave: Json | None, word: str) -> None:
    assert approval in get_args(Rollout.model_fields["approval"].annotation)
    under_way = {"wave": wave} if wave is not None else {}
    waiting = stage(condition("Progressing", "False", "AwaitingApproval"), "AwaitingApproval", **under_way)
    waiting["spec"]["rollout"]["approval"] = approval
    assert argocd.changes(waiting, "approve") == [f"> {APPROVE_ANNOTATION}: {word}"]


@pytest.mark.parametrize("revision", [REVISION, None])
def test_a_verified_job_is_approved_by_the_word_that_the_operator_wants(argocd: ArgoCd, revision: str | None) -> None:
    named = {"revision": revision} if revision is not None else {}
    waiting = job("Verified", condition("Switched", "False", "AwaitingApproval"), spec={"cutover": "Manual", **named})
    assert argocd.actions(waiting) == {"approve"}
    word = approval_word(ReindexJob.model_validate(waiting))
    assert argocd.changes(waiting, "approve") == ["> annotations:", f"> {APPROVE_ANNOTATION}: {word}"]
    failed = job("Failed", condition("Ready", "False", "WorkerFailed"))
    assert argocd.actions(failed) == {"retry"}
    assert argocd.changes(failed, "retry")[-1].startswith(f"> {RETRY_ANNOTATION}: 20")


def test_argo_cd_is_told_to_pass_over_changes_of_status(argocd: ArgoCd) -> None:
    for kind in ("EmbeddingModel", "SearchTenant", "ReindexJob"):
        ignored = argocd.config["data"][f"resource.customizations.ignoreResourceUpdates.searchops.dev_{kind}"]
        assert "/status" in yaml.safe_load(ignored)["jsonPointers"]
