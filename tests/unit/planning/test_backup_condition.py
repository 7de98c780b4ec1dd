"""BackupFresh by what is known, the fields beside it, and the Jobs that are asked for, whole."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from searchops.api.backup import BackupProof, BackupRecord
from searchops.api.v1alpha1.search_tenant_status import BackupStatus, ProofStatus
from searchops.planning.backup import BackupSettings, Candidate, Due
from searchops.planning.backup_jobs import backup_order, job_annotations, prove_order, scratch_collection
from searchops.planning.backup_report import backup_finding, record_from_status, with_backups
from searchops.planning.jobs import job_manifest
from searchops.planning.tenant import plan_tenant
from searchops.planning.tenant_facts import AddFinalizer, EmitEvent, TenantPlan
from unit.planning import tenant_cases as case
from unit.planning import test_backup_plans as plans

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RULES = BackupSettings("prod", "s3://bucket/ops", "cpu", spread=timedelta(0))
ASKING = {"backup": {"schedule": "0 3 * * *"}}
FRESH, OLD = plans.entry("20261124T030000Z"), plans.entry("20261123T030000Z")
PROOF = BackupProof(id=FRESH.id, at="2026-11-24T04:00:00Z", cell="eu-1", points=1, ok=True)


def told(record: BackupRecord | None, spec: dict[str, Any] | None = None, **metadata: Any) -> tuple[str, str, str]:
    tenant = case.make_tenant(spec or ASKING, creation_timestamp="2026-11-01T00:00:00Z", **metadata)
    finding = backup_finding(tenant, record, RULES, NOW)
    return finding.status, str(finding.reason), finding.message


@pytest.mark.parametrize(
    ("record", "status", "reason", "message"),
    [
        (BackupRecord(FRESH, PROOF), "True", "BackedUp", "was restored and counted at 2026-11-24T04:00:00Z"),
        (BackupRecord(FRESH), "True", "BackedUp", "no restore was tried yet"),
        (BackupRecord(OLD), "False", "BackupStale", "wanted that of 2026-11-24T03:00:00Z; look at the Jobs"),
        (BackupRecord(), "False", "BackupStale", "there is none yet, wanted that of 2026-11-24T03:00:00Z"),
        (BackupRecord(FRESH, failure="it broke"), "False", "BackupFailed", "it broke; the newest whole backup is"),
        (
            BackupRecord(FRESH, PROOF.model_copy(update={"ok": False, "message": "9 of 10"})),
            "False",
            "RestoreFailed",
            "did not come back whole at 2026-11-24T04:00:00Z: 9 of 10",
        ),
    ],
)
def test_what_is_known_is_said(record: BackupRecord, status: str, reason: str, message: str) -> None:
    seen = told(record)
    assert seen[:2] == (status, reason)
    assert message in seen[2]


def test_without_a_schedule_with_a_wrong_one_and_before_the_first() -> None:
    assert told(None, {"paused": False}) == ("Unknown", "NotConfigured", "spec.backup is not set")
    assert told(None, {"backup": {"schedule": "61 3 * * *"}})[:2] == ("False", "InvalidSpec")
    new = case.make_tenant(ASKING, creation_timestamp="2026-11-24T11:00:00Z")
    finding = backup_finding(new, None, RULES, NOW)
    assert (finding.status, finding.message) == ("Unknown", "the first backup's turn comes at 2026-11-25T03:00:00Z")


def test_the_status_is_believed_until_the_store_has_been_read() -> None:
    status = {"lastBackup": {"id": FRESH.id, "at": FRESH.taken_at, "points": 1, "bytes": 1}, "cell": "eu-1"}
    tenant = case.make_tenant(ASKING, status=status, creation_timestamp="2026-11-01T00:00:00Z")
    assert backup_finding(tenant, None, RULES, NOW).status == "True"
    assert record_from_status(tenant.status, "u").last == FRESH


def test_a_whole_plan_says_it_in_condition_and_fields_and_changes_nothing_else() -> None:
    tenant = case.make_tenant(ASKING, creation_timestamp="2026-11-01T00:00:00Z")
    status = tenant.status.model_copy(update={"collection": "c"})
    facts = replace(case.make_facts(cell=case.make_cell()), backup=BackupRecord(FRESH, PROOF))
    rules = replace(case.SETTINGS, backups=RULES)
    found = with_backups(TenantPlan((), status, 5.0), tenant, facts, rules, NOW)
    assert found.status is not None
    assert (found.actions, found.requeue_after) == ((), 5.0)
    assert found.status.last_backup == BackupStatus(id=FRESH.id, at=FRESH.taken_at, points=1, bytes=1)
    assert found.status.last_proof == ProofStatus(id=FRESH.id, at=PROOF.at, points=1, ok=True)
    assert [(item.type, item.status) for item in found.status.conditions] == [("BackupFresh", "True")]
    plain = TenantPlan((), status, 5.0)
    assert with_backups(plain, case.make_tenant(), facts, rules, NOW) is plain


def test_a_lost_tenant_goes_to_where_it_was_restored() -> None:
    tenant = case.make_tenant(status={"collection": f"{case.ALIAS}@g1", "cell": "eu-1"})
    facts = replace(case.make_facts(cell=case.make_cell()), restored="us-1")
    message = f"{case.ALIAS} was restored onto cell us-1, which is its cell from now on; it was eu-1"
    wanted = TenantPlan((AddFinalizer("us-1"), EmitEvent("Restored", message)), None, 0.0)
    assert plan_tenant(tenant, facts, case.SETTINGS, NOW) == wanted
    paused = case.make_tenant({"paused": True}, status={"collection": f"{case.ALIAS}@g1", "cell": "eu-1"})
    assert plan_tenant(paused, facts, case.SETTINGS, NOW).actions == ()


DUE = Due(
    Candidate("uid-1", "shop", "acme", "0 3 * * *", 5, NOW), "backup", "20261124T030000Z", 2, NOW - timedelta(hours=9)
)


def test_a_backups_job_may_read_and_snapshot_one_collection() -> None:
    order = backup_order(DUE, case.registration(), f"{case.ALIAS}@g3", RULES, NOW)
    assert order.secret_claims == {
        "exp": int((NOW + timedelta(hours=4, minutes=10)).timestamp()),
        "subject": "uid-1/backup",
        "cell": "eu-1",
        "access": [{"collection": f"{case.ALIAS}@g3", "access": "rw"}],
    }
    assert order.task.model_dump() == {
        "kind": "backup",
        "id": "20261124T030000Z",
        "reason": "Scheduled",
        "fleet": "prod",
        "namespace": "shop",
        "name": "acme",
        "uid": "uid-1",
        "cell": "eu-1",
        "nodes": {"url": "https://eu-1.example:6333", "others": (), "grpc_port": 6334, "ca_cert": None, "name": "eu-1"},
        "alias": case.ALIAS,
        "side": f"{case.ALIAS}@b",
        "collection": f"{case.ALIAS}@g3",
        "generation": 3,
        "keep": 5,
        "prefix": "s3://bucket/ops/backups/prod/shop/acme",
        "result_uri": "s3://bucket/ops/backups/prod/shop/acme/20261124T030000Z/backup-result.json",
    }
    template = {"template": {"spec": {"containers": [{"name": "worker"}]}}}
    manifest = job_manifest(order, template)
    assert manifest["metadata"]["labels"]["searchops.dev/task"] == "backup"
    assert case.KEY not in json.dumps(manifest)
    assert job_annotations(DUE, "eu-1") == {
        "searchops.dev/cell": "eu-1",
        "searchops.dev/backup": "20261124T030000Z",
        "searchops.dev/attempt": "2",
    }


def test_a_proofs_job_may_manage_the_cell_until_its_end() -> None:
    order = prove_order(replace(DUE, kind="prove"), case.registration(), RULES, NOW)
    assert order.secret_claims is not None
    assert (order.secret_claims["access"], order.secret_claims["subject"]) == ("m", "uid-1/prove")
    assert order.secret_claims["exp"] == int((NOW + timedelta(hours=4, minutes=10)).timestamp())
    assert order.task.model_dump()["scratch"] == scratch_collection("prod", "uid-1")
    assert scratch_collection("prod", "uid-1").startswith("prod@proof-")
    assert order.name != backup_order(DUE, case.registration(), f"{case.ALIAS}@g3", RULES, NOW).name
