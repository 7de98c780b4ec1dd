"""The Jobs of backups and proofs, and what their tokens may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchops.api.backup import tenant_prefix
from searchops.api.meta import ObjectMeta
from searchops.api.tasks import BackupTask, CellAddress, ProveTask
from searchops.planning.clocks import CLOCK_SKEW
from searchops.planning.jobs import JobOrder
from searchops.planning.names import CELL_ANNOTATION, alias_name, generation_of, job_name, short_hash, side_alias

if TYPE_CHECKING:
    from datetime import datetime

    from searchops.api.backup import Reason
    from searchops.api.observed import CellRegistration
    from searchops.planning.backup import BackupSettings, Due

BACKUP_ANNOTATION = "searchops.dev/backup"
ATTEMPT_ANNOTATION = "searchops.dev/attempt"


def backup_order(
    due: Due,
    cell: CellRegistration,
    collection: str,
    settings: BackupSettings,
    now: datetime,
    reason: Reason = "Scheduled",
) -> JobOrder:
    """The Job of one backup of a tenant's collection.

    Its token may read and snapshot that one collection by its physical name, and nothing else.
    """
    who = due.candidate
    alias = alias_name(settings.fleet, who.namespace, who.name)
    generation = generation_of(alias, collection) or 1
    name = job_name("backup", who.uid, due.backup, str(due.attempt))
    prefix = tenant_prefix(settings.artifacts, settings.fleet, who.namespace, who.name)
    task = BackupTask(
        id=due.backup,
        reason=reason,
        fleet=settings.fleet,
        namespace=who.namespace,
        name=who.name,
        uid=who.uid,
        cell=cell.name,
        nodes=_address(cell),
        alias=alias,
        side=side_alias(alias, generation),
        collection=collection,
        generation=generation,
        keep=who.keep,
        prefix=prefix,
        result_uri=f"{prefix}/{due.backup}/backup-result.json",
    )
    access = [{"collection": collection, "access": "rw"}]
    return _order(due, name, task, cell, settings, {**_claims(due, cell, settings, now), "access": access})


def prove_order(due: Due, cell: CellRegistration, settings: BackupSettings, now: datetime) -> JobOrder:
    """The Job of one proof. Making a collection needs the right to manage the whole cell: its token has it, briefly."""
    who = due.candidate
    name = job_name("prove", who.uid, due.backup, str(due.attempt))
    prefix = tenant_prefix(settings.artifacts, settings.fleet, who.namespace, who.name)
    task = ProveTask(
        id=due.backup,
        fleet=settings.fleet,
        namespace=who.namespace,
        name=who.name,
        cell=cell.name,
        nodes=_address(cell),
        scratch=scratch_collection(settings.fleet, who.uid),
        prefix=prefix,
        result_uri=f"{prefix}/{due.backup}/prove-result.json",
    )
    return _order(due, name, task, cell, settings, {**_claims(due, cell, settings, now), "access": "m"})


def scratch_collection(fleet: str, uid: str) -> str:
    """Name of the collection that a tenant's proof uses: ``@`` keeps it apart from every tenant's own."""
    return f"{fleet}@proof-{short_hash(uid, length=12)}"


def job_annotations(due: Due, cell: str) -> dict[str, str]:
    """By which an operator that was restarted knows the Job."""
    return {CELL_ANNOTATION: cell, BACKUP_ANNOTATION: due.backup, ATTEMPT_ANNOTATION: str(due.attempt)}


def _claims(due: Due, cell: CellRegistration, settings: BackupSettings, now: datetime) -> dict[str, Any]:
    expires = now + settings.deadline * 2 + CLOCK_SKEW
    return {"exp": int(expires.timestamp()), "subject": f"{due.candidate.uid}/{due.kind}", "cell": cell.name}


def _order(
    due: Due,
    name: str,
    task: BackupTask | ProveTask,
    cell: CellRegistration,
    settings: BackupSettings,
    claims: dict[str, Any],
) -> JobOrder:
    owner = ObjectMeta(name=due.candidate.name, namespace=due.candidate.namespace, uid=due.candidate.uid)
    return JobOrder(
        name=name,
        kind=due.kind,
        task=task,
        owner=owner,
        owner_kind="SearchTenant",
        deadline=settings.deadline,
        cell=cell.name,
        secret_claims=claims,
    )


def _address(cell: CellRegistration) -> CellAddress:
    return CellAddress(
        url=cell.urls[0], others=cell.urls[1:], grpc_port=cell.grpc_port, ca_cert=cell.ca_cert, name=cell.name
    )
