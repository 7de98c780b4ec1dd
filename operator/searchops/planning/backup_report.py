"""BackupFresh: whether a tenant's newest whole backup is as new as its schedule wants, and was seen to come back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from searchops.api.backup import BackupEntry, BackupProof, BackupRecord
from searchops.api.meta import format_time, parse_time
from searchops.api.v1alpha1.search_tenant import TenantReason
from searchops.api.v1alpha1.search_tenant_status import BackupStatus, ProofStatus
from searchops.planning.backup import backup_id, first_turn, newest_moment, offset_of, schedule_problem_of
from searchops.planning.conditions import Finding, no, stamp, unknown, yes

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.v1alpha1.search_tenant import SearchTenant
    from searchops.api.v1alpha1.search_tenant_status import SearchTenantStatus
    from searchops.planning.backup import BackupSettings
    from searchops.planning.tenant_facts import TenantFacts, TenantPlan, TenantSettings


def with_backups(
    plan: TenantPlan, tenant: SearchTenant, facts: TenantFacts, settings: TenantSettings, now: datetime
) -> TenantPlan:
    """The plan, its status saying what is known of backups; unchanged where none are asked for."""
    if plan.status is None or tenant.spec.backup is None or plan.status.collection is None:
        return plan
    finding = backup_finding(tenant, facts.backup, settings.backups, now)
    (condition,) = stamp((finding,), tenant.status.conditions, tenant.metadata.generation, now)
    others = [one for one in plan.status.conditions if one.type != condition.type]
    conditions = tuple(sorted((*others, condition), key=lambda one: one.type))
    status = plan.status.model_copy(update={**status_fields(facts.backup), "conditions": conditions})
    return replace(plan, status=status)


def record_from_status(status: SearchTenantStatus, uid: str) -> BackupRecord:
    """What the tenant's own status remembers, until the store has been read."""
    last, proof, cell = status.last_backup, status.last_proof, status.cell or ""
    entry = None
    if last is not None:
        entry = BackupEntry(id=last.id, taken_at=last.at, cell=cell, uid=uid, points=last.points, size=last.bytes)
    proved = None
    if proof is not None:
        proved = BackupProof(id=proof.id, at=proof.at, cell=cell, points=proof.points, ok=proof.ok)
    return BackupRecord(entry, proved)


def status_fields(record: BackupRecord | None) -> dict[str, object]:
    """`lastBackup` and `lastProof`; unchanged where nothing has been read yet."""
    if record is None:
        return {}
    last, proof = record.last, record.proof
    fields: dict[str, object] = {"last_backup": None, "last_proof": None}
    if last is not None:
        fields["last_backup"] = BackupStatus(id=last.id, at=last.taken_at, points=last.points, bytes=last.size)
    if proof is not None:
        fields["last_proof"] = ProofStatus(id=proof.id, at=proof.at, points=proof.points, ok=proof.ok)
    return fields


def backup_finding(
    tenant: SearchTenant, record: BackupRecord | None, settings: BackupSettings | None, now: datetime
) -> Finding:
    """The condition. Its message has moments, never an age: it changes only when something happened."""
    if tenant.spec.backup is None or settings is None:
        return unknown("BackupFresh", TenantReason.NOT_CONFIGURED, "spec.backup is not set")
    schedule = tenant.spec.backup.schedule
    problem = schedule_problem_of(schedule)
    if problem is not None:
        return no("BackupFresh", TenantReason.INVALID_SPEC, f"{problem}; nothing is backed up")
    known = record if record is not None else record_from_status(tenant.status, tenant.metadata.uid)
    offset, created = offset_of(tenant.metadata.uid, settings.spread), _created(tenant, now)
    last, proof = known.last, known.proof
    held = (
        f"the newest whole backup is {last.id}, begun at {last.taken_at}" if last is not None else "there is none yet"
    )
    if known.failure:
        return no("BackupFresh", TenantReason.BACKUP_FAILED, f"{known.failure}; {held}")
    wanted = newest_moment(schedule, offset + settings.overdue, now)
    if last is None and wanted < created:
        turn = format_time(first_turn(schedule, offset, created))
        return unknown("BackupFresh", TenantReason.WAITING, f"the first backup's turn comes at {turn}")
    if last is None or last.id < backup_id(wanted):
        message = (
            f"{held}, wanted that of {format_time(wanted)}; look at the Jobs labelled searchops.dev/task=backup and at "
            "how many tenants share the cell: one is backed up at a time"
        )
        return no("BackupFresh", TenantReason.BACKUP_STALE, message)
    if proof is not None and not proof.ok:
        message = f"backup {proof.id} did not come back whole at {proof.at}: {proof.message or 'see its proof.json'}"
        step = "the next one is proved as soon as it is made; `searchops restore --backup` takes an older one"
        return no("BackupFresh", TenantReason.RESTORE_FAILED, f"{message}; {step}")
    proved = f"{proof.id} was restored and counted at {proof.at}" if proof is not None else "no restore was tried yet"
    message = f"{last.id}, begun at {last.taken_at}, {last.points} points; {proved}"
    return yes("BackupFresh", TenantReason.BACKED_UP, message)


def _created(tenant: SearchTenant, now: datetime) -> datetime:
    try:
        return parse_time(tenant.metadata.creation_timestamp)
    except ValueError:
        return now
