"""`searchops`: what is going on, why something is not ready, and the annotations that the operator listens to.

Exit codes: 0 ready or done, 1 not ready or nothing to show, 2 unusable arguments or content, 3 the API server or the
artifact store did not answer.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from searchops.adapters.artifacts import ArtifactStore
from searchops.adapters.kube import object_path
from searchops.adapters.kube_api import KubeApi, NotFound
from searchops.cli.cells import cell_rows, cell_table, hold_lines, orphan_lines, read_holds, read_report, with_holds
from searchops.cli.explain import condition, next_actions, reasons
from searchops.cli.plan import behind, plan_lines, rollout_lines
from searchops.cli.revisions import Verb, refusal
from searchops.cli.verdict import MOST_BYTES, NoEvidenceError, read_evidence, referred, shown
from searchops.planning.names import (
    APPROVE_ANNOTATION,
    CELL_STATE_PREFIX,
    PAUSE_ANNOTATION,
    RETRY_ANNOTATION,
    ROLLBACK_ANNOTATION,
)
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_show_locals=False, help=__doc__)
EXIT_NOT_READY = 1
ORPHANS_NEXT = (
    "what to do: a SearchTenant of the namespace and name in the collection's metadata takes it back; to give it to "
    "another, name it in the annotation searchops.dev/adopt after its metadata was removed; else drop it by hand"
)
EXIT_NO_ANSWER = 3
KINDS = {"tenant": "searchtenants", "model": "embeddingmodels", "reindex": "reindexjobs"}
Kubeconfig = Annotated[Path | None, typer.Option(envvar="KUBECONFIG", help="As kubectl's; in a Pod not needed.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Of a tenant or ReindexJob.")]
OperatorNamespace = Annotated[
    str,
    typer.Option(
        "--operator-namespace",
        "--system",
        envvar="SEARCHOPS_NAMESPACE",
        help="Where the operator runs: its reports are there.",
    ),
]
Kind = Annotated[str, typer.Option(help="model or reindex.")]
Output = Annotated[str, typer.Option("--output", "-o", help="table or json.")]
console = Console(soft_wrap=True)


def _with_api(kubeconfig: Path | None, work: Callable[[KubeApi], Awaitable[int]]) -> None:
    """Connect, work, and end with the exit status."""

    async def run() -> int:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" not in os.environ:
            kubeconfig_used: Path | None = Path.home() / ".kube" / "config"
        else:
            kubeconfig_used = kubeconfig
        api = await KubeApi.connect(kubeconfig_used)
        try:
            return await work(api)
        finally:
            await api.close()

    try:
        code = asyncio.run(run())
    except ReconcileError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_NO_ANSWER) from error
    raise typer.Exit(code)


@app.command()
def status(
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = "searchops-system",
    output: Output = "table",
) -> None:
    """The fleet: every cell, every model, how many tenants are ready, and cells whose key is being rotated."""
    _check_output(output)

    async def work(api: KubeApi) -> int:
        models = await api.list(object_path("embeddingmodels", ""))
        tenants = await api.list(object_path("searchtenants", ""))
        report, holds = await read_report(api, operator_namespace) or {}, await read_holds(api, operator_namespace)
        cells = cell_rows(with_holds(report, holds), tenants)
        ready = sum(condition(item, "Ready").get("status") == "True" for item in tenants)
        rotations = await _rotations(api, operator_namespace)
        if output == "json":
            rows = [{"name": item["metadata"]["name"], "status": item.get("status", {})} for item in models]
            fleet = {"total": len(tenants), "ready": ready}
            document = {"models": rows, "cells": cells, "tenants": fleet, "keyRotations": rotations}
            typer.echo(json.dumps(document))
        else:
            console.print(cell_table(cells))
            console.print(_model_table(models))
            console.print(f"tenants ready: {ready} of {len(tenants)}")
            for line in [*hold_lines(holds), *_rotation_lines(rotations)]:
                console.print(line, markup=False)
        return 0 if ready == len(tenants) else EXIT_NOT_READY

    _with_api(kubeconfig, work)


@app.command()
def orphans(
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = "searchops-system",
    output: Annotated[str, typer.Option("--output", "-o", help="lines or json.")] = "lines",
) -> None:
    """Collections of this fleet that no SearchTenant and no deletion answers for; nothing ever deletes them."""
    if output not in ("lines", "json"):
        typer.echo(f"--output {output!r}; wanted lines or json", err=True)
        raise typer.Exit(2)

    async def work(api: KubeApi) -> int:
        report = await read_report(api, operator_namespace)
        if report is None:
            typer.echo(f"there is no report on cells in namespace {operator_namespace}: the operator has not", err=True)
            typer.echo("looked at its cells yet (settings.driftMinutes), or runs elsewhere", err=True)
            return EXIT_NO_ANSWER
        silent = [cell for cell, row in report.items() if not row.get("answers")]
        if silent:
            typer.echo(f"not answered, so unknown: {', '.join(silent)}", err=True)
        if output == "json":
            typer.echo(json.dumps({cell: row.get("orphans") for cell, row in report.items()}))
        else:
            lines = orphan_lines(report)
            for line in lines:
                typer.echo(line)
            if lines:
                typer.echo(ORPHANS_NEXT, err=True)
        return 0

    _with_api(kubeconfig, work)


async def _rotations(api: KubeApi, system: str) -> list[dict[str, str]] | None:
    """How far the rotation of each cell's key is; None where the operator's namespace may not be read."""
    try:
        found = await api.list(f"/api/v1/namespaces/{system}/configmaps")
    except ReconcileError:
        return None
    rows = []
    for item in found:
        name, data = item["metadata"]["name"], item.get("data") or {}
        if name.startswith(CELL_STATE_PREFIX):
            kept = {key: data.get(key, "") for key in ("phase", "resigned", "total", "message")}
            rows.append({"cell": name.removeprefix(CELL_STATE_PREFIX), **kept})
    return rows


def _rotation_lines(rotations: list[dict[str, str]] | None) -> list[str]:
    if rotations is None:
        return ["key rotations: the ConfigMaps of the operator's namespace cannot be read; name it by --system"]
    return [
        f"key of cell {row['cell']}: {row['phase']}, {row['resigned']} of {row['total']} tokens; {row['message']}"
        for row in rotations
        if row["phase"] != "Idle"
    ]


def _model_table(models: list[dict[str, Any]]) -> Table:
    table = Table("model", "ready", "phase", "active", "candidate", "wave", "verdict", "bound")
    for item in models:
        own = item.get("status", {})
        fleet = own.get("tenants", {})
        table.add_row(
            item["metadata"]["name"],
            condition(item, "Ready").get("status", "-"),
            own.get("phase", "-"),
            (own.get("active") or {}).get("revision", "-"),
            (own.get("candidate") or {}).get("revision", "-"),
            (own.get("wave") or {}).get("name", "-"),
            (own.get("verdict") or {}).get("outcome", "-"),
            f"{fleet.get('bound', 0)}/{fleet.get('total', 0) - fleet.get('held', 0)}",
        )
    return table


@app.command()
def explain(
    kind: Annotated[str, typer.Argument(help="tenant, model or reindex.")],
    name: Annotated[str, typer.Argument(help="Name of the object.")],
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
) -> None:
    """Why an object is not ready: the conditions that do not hold, what they mean, what to do next."""
    if kind not in KINDS:
        typer.echo(f"kind {kind!r}; wanted one of {', '.join(KINDS)}", err=True)
        raise typer.Exit(2)
    _check_scope(kind, namespace)

    async def work(api: KubeApi) -> int:
        found = await api.get(object_path(KINDS[kind], namespace, name))
        if found is None:
            typer.echo(_absent(kind, namespace, name), err=True)
            return 2
        for line in reasons(found):
            typer.echo(line)
        actions = next_actions(found)
        if actions:
            typer.echo("what to do:")
        for line in actions:
            typer.echo(f"  {line}")
        return 0 if condition(found, "Ready").get("status") == "True" else EXIT_NOT_READY

    _with_api(kubeconfig, work)


@app.command()
def plan(
    kind: Annotated[str, typer.Argument(help="tenant or model.")],
    name: Annotated[str, typer.Argument(help="Name of the object.")],
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = None,
    output: Output = "table",
) -> None:
    """What a tenant's rebuild or a model's rollout would do, how long and at what cost; 1 where none is wanted.

    It is there before anything starts: with spec.paused: true, or spec.rollout.approval, it can be read at leisure.
    """
    if kind not in ("tenant", "model"):
        typer.echo(f"kind {kind!r}; wanted tenant or model", err=True)
        raise typer.Exit(2)
    _check_scope(kind, namespace)
    _check_output(output)

    async def work(api: KubeApi) -> int:
        found = await api.get(object_path(KINDS[kind], namespace, name))
        if found is None:
            typer.echo(_absent(kind, namespace, name), err=True)
            return 2
        if late := behind(found):
            typer.echo(late, err=True)
        foreseen = found.get("status", {}).get("plan")
        if output == "json":
            typer.echo(json.dumps(foreseen, ensure_ascii=False))
        elif foreseen is None:
            nothing = f"no rebuild of {namespace}/{name} is wanted"
            typer.echo(nothing if kind == "tenant" else f"model {name} has no candidate that is built")
        else:
            for line in plan_lines(found) if kind == "tenant" else rollout_lines(found):
                typer.echo(line)
        return EXIT_NOT_READY if foreseen is None else 0

    _with_api(kubeconfig, work)


def _check_scope(kind: str, namespace: str) -> None:
    """A model has no namespace, and nothing else can be found without one."""
    if (kind != "model") != bool(namespace):
        wanted = "no --namespace, since models belong to the cluster" if namespace else "--namespace NAME"
        typer.echo(f"kind {kind!r} in namespace {namespace!r}; wanted {wanted}", err=True)
        raise typer.Exit(2)


def _absent(kind: str, namespace: str, name: str) -> str:
    where = f"{namespace}/{name}" if namespace else name
    scope = f" -n {namespace}" if namespace else ""
    return f"there is no {kind} {where}; see what there is: kubectl get {KINDS[kind]}.searchops.dev{scope}"


@app.command()
def verdict(
    model: Annotated[str, typer.Argument(help="Name of the EmbeddingModel.")],
    revision: Annotated[str | None, typer.Option(help="Of an earlier verdict; the last one where not given.")] = None,
    kubeconfig: Kubeconfig = None,
    output: Output = "table",
) -> None:
    """The evidence of a verdict: gates, what was lost and gained, what would settle it.

    It is read from the artifact store with this terminal's own credentials, and must be what the verdict was made from.
    """
    _check_output(output)

    async def work(api: KubeApi) -> int:
        found = await api.get(object_path(KINDS["model"], "", model))
        if found is None:
            typer.echo(_absent("model", "", model), err=True)
            return 2
        own = found.get("status", {})
        try:
            reference = referred(model, own, revision)
            content = await ArtifactStore(timeout=60.0).read(reference.uri, limit=MOST_BYTES)
            document = read_evidence(reference, content)
        except NoEvidenceError as error:
            typer.echo(str(error), err=True)
            return EXIT_NOT_READY if not own.get("verdict") and revision is None else 2
        if output == "json":
            typer.echo(json.dumps(document, ensure_ascii=False))
        else:
            for part in shown(reference, document):
                console.print(part)
        return 0

    _with_api(kubeconfig, work)


def _check_output(output: str) -> None:
    if output not in ("table", "json"):
        typer.echo(f"--output {output!r}; wanted table or json", err=True)
        raise typer.Exit(2)


def _annotate(
    name: str,
    annotation: str,
    value: str | None,
    kubeconfig: Path | None,
    *,
    kind: str = "model",
    namespace: str = "",
    verb: Verb | None = None,
) -> None:
    if kind not in ("model", "reindex") or (kind == "reindex") != bool(namespace):
        typer.echo(f"kind {kind!r} in namespace {namespace!r}; wanted model, or reindex with --namespace", err=True)
        raise typer.Exit(2)

    async def work(api: KubeApi) -> int:
        path = object_path(KINDS[kind], namespace, name)
        try:
            seen = await api.get(path) if verb is not None else None
            if verb is not None and seen is not None and (refused := refusal(verb, seen, value or "")):
                typer.echo(refused, err=True)
                return 2
            await api.patch(path, {"metadata": {"annotations": {annotation: value}}})
        except NotFound:
            typer.echo(_absent(kind, namespace, name), err=True)
            return 2
        typer.echo(f"{name}: {annotation} {'removed' if value is None else value}")
        return 0

    _with_api(kubeconfig, work)


@app.command()
def approve(
    name: str, revision: str, kind: Kind = "model", namespace: Namespace = "", kubeconfig: Kubeconfig = None
) -> None:
    """Let a revision's next wave start, or the tenant of a verified ReindexJob with a manual cutover switch."""
    verb: Verb | None = "approve" if kind == "model" else None
    _annotate(name, APPROVE_ANNOTATION, revision, kubeconfig, kind=kind, namespace=namespace, verb=verb)


@app.command()
def retry(
    name: str, token: str, kind: Kind = "model", namespace: Namespace = "", kubeconfig: Kubeconfig = None
) -> None:
    """Try a refused digest or a failed ReindexJob again; the token is any new word."""
    _annotate(name, RETRY_ANNOTATION, token, kubeconfig, kind=kind, namespace=namespace)


@app.command()
def pause(model: str, kubeconfig: Kubeconfig = None) -> None:
    """Hold a rollout where it is."""
    _annotate(model, PAUSE_ANNOTATION, "true", kubeconfig)


@app.command()
def resume(model: str, kubeconfig: Kubeconfig = None) -> None:
    """Go on."""
    _annotate(model, PAUSE_ANNOTATION, None, kubeconfig)


@app.command()
def rollback(model: str, revision: str, kubeconfig: Kubeconfig = None) -> None:
    """Take a candidate back, or the active revision while it may be taken back."""
    _annotate(model, ROLLBACK_ANNOTATION, revision, kubeconfig, verb="rollback")


@app.command()
def restore(
    name: Annotated[str, typer.Argument(help="The SearchTenant, which must exist.")],
    cell: Annotated[str, typer.Option(help="The cell that gets the data.")],
    artifacts: Annotated[str, typer.Option(envvar="SEARCHOPS_ARTIFACTS", help="The operator's artifact store.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The tenant's namespace.")],
    backup: Annotated[
        str | None, typer.Option(help="Id of a backup; the newest whole one where it is not named.")
    ] = None,
    fleet: Annotated[str, typer.Option(envvar="SEARCHOPS_FLEET", help="The operator's fleet.")] = "prod",
    system: Annotated[
        str, typer.Option(envvar="SEARCHOPS_NAMESPACE", help="The operator's namespace.")
    ] = "searchops-system",
    lost_cell: Annotated[str | None, typer.Option(help="A cell that is given up and need not answer.")] = None,
    other_namespace: Annotated[
        bool, typer.Option("--other-namespace", help="The namespace was made anew, as after the loss of a cluster.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    kubeconfig: Kubeconfig = None,
) -> None:
    """A tenant back into a cell from its backup alone; what is there and not its own is never overwritten."""
    from searchops.cli.restore import Request, run_restore

    request = Request(namespace, name, cell, backup, fleet, artifacts, system, lost_cell, other_namespace, dry_run)
    _with_api(kubeconfig, lambda api: run_restore(api, request))


def main() -> None:
    """Console entry."""
    app()
