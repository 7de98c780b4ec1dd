"""`searchops restore`: a tenant back into a cell from its backup alone, after a look at every other cell."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from searchops.adapters.directory import RegisteredDirectory
from searchops.adapters.kube import KubeObjects, object_path
from searchops.api.backup import tenant_prefix
from searchops.planning.names import CELL_ANNOTATION, KEY_NAMESPACE_UID, alias_name
from searchops_workers.backup.errors import BackupError, BadBackup, NotOurs
from searchops_workers.backup.node import open_nodes
from searchops_workers.backup.recover import usable
from searchops_workers.backup.restore import Order, newest, plan, restore
from searchops_workers.backup.store import TenantBackups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.adapters.kube_api import KubeApi
    from searchops.api.observed import CellRegistration

DONE, AGAIN, UNUSABLE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes:
        backup: an id; None takes the newest whole one.
        system: the operator's namespace, where cells are registered.
        lost_cell: a cell that is given up: it need not answer.
        other_namespace: whether the backup may be of an earlier namespace of that name, as after the loss of a cluster.
    """

    namespace: str
    name: str
    cell: str
    backup: str | None
    fleet: str
    artifacts: str
    system: str
    lost_cell: str | None
    other_namespace: bool
    dry_run: bool


class Unusable(Exception):  # noqa: N818 - what is the case
    """The request cannot be done as it stands."""


async def run_restore(api: KubeApi, request: Request) -> int:
    """Do it, say each step, and return the exit status: 0 done, 1 try again, 2 it cannot be done as it stands."""
    try:
        points = await _restore(api, request)
    except (Unusable, NotOurs, BadBackup) as error:
        typer.echo(str(error), err=True)
        return UNUSABLE
    except BackupError as error:
        typer.echo(f"{error}\nthe same command goes on from here", err=True)
        return AGAIN
    if points is None:
        typer.echo("dry run: nothing was changed")
    else:
        typer.echo(f"{points} points are back; the operator takes the tenant over at its next look, a resync at most")
    return DONE


async def _restore(api: KubeApi, request: Request) -> int | None:
    tenant = await api.get(object_path("searchtenants", request.namespace, request.name))
    if tenant is None:
        raise Unusable(
            f"there is no SearchTenant {request.namespace}/{request.name}: apply it with spec.paused: true first, so "
            "that it is not placed before its data is back; then restore, then lift the pause"
        )
    cells = await _cells(api, request.system)
    if request.cell not in cells:
        known = ", ".join(sorted(cells)) or "none"
        raise Unusable(f"--cell {request.cell}: no such cell in namespace {request.system}; registered are {known}")
    objects = KubeObjects(api)
    namespace_uid = await objects.namespace_uid(request.namespace)
    cluster = await objects.cluster_uid()
    prefix = tenant_prefix(request.artifacts, request.fleet, request.namespace, request.name)
    backups = TenantBackups(prefix, request.fleet, request.namespace, request.name)
    manifest = usable(backups, newest(backups, request.backup))
    _same_namespace(request, str(manifest.metadata.get(KEY_NAMESPACE_UID, "")), namespace_uid)
    _lives_nowhere(request, tenant, cells)
    identity = {
        "searchops.dev/fleet": request.fleet,
        "searchops.dev/cell": request.cell,
        "searchops.dev/cluster": cluster,
    }
    order = Order(manifest.id, request.cell, identity, str(tenant["metadata"]["uid"]), namespace_uid)
    target = cells[request.cell]
    with ExitStack() as stack:
        nodes = open_nodes(target.urls[0], target.urls[1:], target.api_key, target.ca_cert)
        for node in nodes:
            stack.callback(node.close)
        if request.dry_run:
            for step in plan(order, manifest, nodes[0]):
                typer.echo(f"would {step}")
            return None
        return restore(order, backups, nodes, typer.echo)


async def _cells(api: KubeApi, namespace: str) -> dict[str, CellRegistration]:
    """Every registered cell that has an address, as the operator reads it."""
    directory = RegisteredDirectory()
    for item in await api.list(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"):
        directory.apply_slice("ADDED", item)
    secrets = await api.list(f"/api/v1/namespaces/{namespace}/secrets", label_selector="searchops.dev/cell=true")
    for item in secrets:
        directory.apply_secret("ADDED", item)
    return {name: cell for name, cell in directory.cells().items() if cell.urls}


def _same_namespace(request: Request, backed_up: str, now: str) -> None:
    if backed_up == now or request.other_namespace:
        return
    raise Unusable(
        f"the backup is of a namespace {request.namespace} with uid {backed_up!r}, today's has {now!r}: somebody else "
        "may have taken the name; where it is the same merchant, as after the loss of a cluster, say --other-namespace"
    )


def _lives_nowhere(request: Request, tenant: Mapping[str, Any], cells: Mapping[str, CellRegistration]) -> None:
    """No other cell has the tenant published: two places would take its writes and its searches apart."""
    alias = alias_name(request.fleet, request.namespace, request.name)
    claimed = (tenant["metadata"].get("annotations") or {}).get(CELL_ANNOTATION)
    for name, cell in sorted(cells.items()):
        if name in (request.cell, request.lost_cell):
            continue
        with ExitStack() as stack:
            opened = open_nodes(cell.urls[0], cell.urls[1:], cell.api_key, cell.ca_cert)
            for node in opened:
                stack.callback(node.close)
            try:
                target = opened[0].aliases().get(alias)
            except BackupError as error:
                if name != claimed:
                    continue
                raise Unusable(
                    f"cell {name}, where the tenant lives, does not answer ({error}); where it is lost for good say "
                    f"--lost-cell {name} and remove its Secret, so that the operator goes to {request.cell}"
                ) from error
        if target is not None:
            raise Unusable(
                f"the tenant lives on cell {name}: alias {alias} points to {target} there; nothing was restored; "
                "remove that alias by hand if that copy is of no use"
            )
