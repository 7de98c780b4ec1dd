"""Actions in Lua, run by Argo CD itself: what each changes, and that status is passed over."""

from __future__ import annotations

import re
from typing import get_args

import pytest
import yaml

from integration.argocd_objects import ACTIVE, PHASES, REVISION, ArgoCd, Json, condition, job, stage
from searchops.api.v1alpha1 import ReindexJob
from searchops.api.v1alpha1.embedding_model import Rollout
from searchops.planning.names import APPROVE_ANNOTATION, PAUSE_ANNOTATION, RETRY_ANNOTATION, ROLLBACK_ANNOTATION
from searchops.planning.reindex_request import approval_word

pytestmark = pytest.mark.integration


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
