"""The command line against a real API server: each command does what it says to its object, or tells what to do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml
from typer.testing import CliRunner

from searchops.cli.main import app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops_sandbox.control_plane import ControlPlane
    from searchops_sandbox.kubernetes_api import KubernetesApi

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

NAMESPACE = "merchants-eu"
REVISION = "shop-encoder-r3-4be1c7aa"
"""Candidate and active revision of the full document."""
SAMPLES = Path(__file__).parents[1] / "unit/api/full_documents"
Json = dict[str, Any]


def path_of(kind: str, name: str = "") -> str:
    scope = "" if kind == "embeddingmodels" else f"namespaces/{NAMESPACE}/"
    return f"/apis/searchops.dev/v1alpha1/{scope}{kind}" + (f"/{name}" if name else "")


class Terminal:
    """Runs `searchops` beside the test's own loop, since it makes one of its own."""

    def __init__(self, plane: ControlPlane, api: KubernetesApi) -> None:
        self.kubeconfig = str(plane.kubeconfig)
        self.api = api

    async def __call__(self, *arguments: str, kubeconfig: str | None = None) -> tuple[int, str]:
        environment = {"KUBECONFIG": kubeconfig or self.kubeconfig, "COLUMNS": "200"}
        done = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment)
        return done.exit_code, done.output

    async def annotations(self, kind: str, name: str) -> Json:
        found = await self.api.get(path_of(kind, name))
        seen: Json = found["metadata"].get("annotations", {})
        return seen


@pytest_asyncio.fixture(loop_scope="session")
async def terminal(definitions: ControlPlane) -> AsyncIterator[Terminal]:
    """A model and a ReindexJob with the status of their full documents."""
    made = []
    async with definitions.api() as api:
        for kind in ("embeddingmodels", "reindexjobs", "searchtenants"):
            document = json.loads(
                json.dumps(yaml.safe_load((SAMPLES / f"{kind}.yaml").read_text(encoding="utf-8")), default=str)
            )
            status = document.pop("status")
            document["metadata"] = {"name": "told"}
            await api.create(path_of(kind), document)
            made.append(path_of(kind, "told"))
            await api.patch(f"{made[-1]}/status", {"status": status})
        yield Terminal(definitions, api)
        for path in made:
            await api.delete(path)


async def test_explain_tells_what_does_not_hold_and_what_is_not_there(terminal: Terminal) -> None:
    not_ready = {
        "type": "Ready",
        "status": "False",
        "reason": "Rejected",
        "message": "25 lost",
        "lastTransitionTime": "2026-11-24T12:00:00Z",
        "observedGeneration": 1,
    }
    await terminal.api.patch(
        f"{path_of('embeddingmodels', 'told')}/status",
        {"status": {"conditions": [not_ready], "observedGeneration": 1}},
    )
    code, said = await terminal("explain", "model", "told")
    assert code == 1
    assert said.startswith("Ready=False Rejected: 25 lost\nwhat to do:\n  Rejected: ")
    assert "retryToken" in said
    code, said = await terminal("explain", "model", "nobody")
    assert (code, said) == (
        2,
        "there is no model nobody; see what there is: kubectl get embeddingmodels.searchops.dev\n",
    )
    code, said = await terminal("explain", "reindex", "nobody", "-n", NAMESPACE)
    assert (code, f"kubectl get reindexjobs.searchops.dev -n {NAMESPACE}" in said) == (2, True)
    code, said = await terminal("explain", "tenant", "told")
    assert (code, "wanted --namespace NAME" in said) == (2, True)
    code, said = await terminal("explain", "model", "told", "-n", NAMESPACE)
    assert (code, "wanted no --namespace" in said) == (2, True)
    code, said = await terminal("explain", "pool", "told")
    assert (code, "wanted one of tenant, model, reindex" in said) == (2, True)


async def test_each_annotation_lands_on_the_object_and_leaves_again(terminal: Terminal) -> None:
    for arguments, annotation, value in (
        (("approve", "told", REVISION), "searchops.dev/approve", REVISION),
        (("retry", "told", "mended"), "searchops.dev/retry", "mended"),
        (("pause", "told"), "searchops.dev/pause", "true"),
        (("rollback", "told", REVISION), "searchops.dev/rollback", REVISION),
    ):
        code, said = await terminal(*arguments)
        assert (code, said) == (0, f"told: {annotation} {value}\n")
        assert (await terminal.annotations("embeddingmodels", "told"))[annotation] == value
    assert await terminal("resume", "told") == (0, "told: searchops.dev/pause removed\n")
    assert "searchops.dev/pause" not in await terminal.annotations("embeddingmodels", "told")
    code, _ = await terminal("approve", "told", "word", "--kind", "reindex", "-n", NAMESPACE)
    assert code == 0
    assert await terminal.annotations("reindexjobs", "told") == {"searchops.dev/approve": "word"}


@pytest.mark.parametrize("verb", ["approve", "rollback"])
async def test_a_revision_that_is_not_there_is_refused_and_nothing_is_annotated(terminal: Terminal, verb: str) -> None:
    code, said = await terminal(verb, "told", "shop-encoder-r9-99999999")
    assert code == 2
    assert f"no such revision to {verb}: 'shop-encoder-r9-99999999'" in said
    assert REVISION in said
    assert await terminal.annotations("embeddingmodels", "told") == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve", "nobody", "x"),
        ("retry", "nobody", "x"),
        ("pause", "nobody"),
        ("resume", "nobody"),
        ("rollback", "nobody", "x"),
    ],
)
async def test_an_object_that_is_not_there_is_named_with_the_way_to_find_it(
    terminal: Terminal, arguments: tuple[str, ...]
) -> None:
    assert await terminal(*arguments) == (
        2,
        "there is no model nobody; see what there is: kubectl get embeddingmodels.searchops.dev\n",
    )


async def test_a_verdict_is_read_by_the_uri_in_the_status(terminal: Terminal, tmp_path: Path) -> None:
    document = {
        "format": "searchops.dev/evidence/v1",
        "verdict": {"outcome": "Regressed", "reason": "PreservationLoss", "message": "25 of 210 lost"},
        "question": {"change": "Model", "alpha": 0.05, "recentAttempts": 0},
        "holdout": {"name": "core", "version": "1.0.0"},
        "gates": [],
        "settlements": [],
        "losses": [],
        "gains": [],
    }
    content = json.dumps(document).encode()
    (tmp_path / "evidence.json").write_bytes(content)
    evidence = {
        "uri": f"file://{tmp_path}/evidence.json",
        "digest": f"sha256:{hashlib.sha256(content).hexdigest()}",
    }
    verdict = {"revision": "told-r2-bbbbbbbb", "outcome": "Regressed", "evidence": evidence}
    await terminal.api.patch(f"{path_of('embeddingmodels', 'told')}/status", {"status": {"verdict": verdict}})
    code, said = await terminal("verdict", "told", "-o", "json")
    assert (code, json.loads(said)) == (0, document)
    code, said = await terminal("verdict", "told")
    assert (code, "told-r2-bbbbbbbb: Regressed (PreservationLoss)" in said) == (0, True)


async def test_without_a_way_to_the_api_server_the_way_is_named(terminal: Terminal, tmp_path: Path) -> None:
    code, said = await terminal("explain", "model", "told", kubeconfig=str(tmp_path / "none"))
    assert (code, "set KUBECONFIG or run in a Pod" in said) == (3, True)


async def test_a_plan_is_printed_for_people_and_as_it_stands_in_the_status(terminal: Terminal) -> None:
    """The plan went through the API server whole: what its schema does not know it would have taken out."""
    written = yaml.safe_load((SAMPLES / "searchtenants.yaml").read_text(encoding="utf-8"))["status"]["plan"]
    await terminal.api.patch(f"{path_of('searchtenants', 'told')}/status", {"status": {"observedGeneration": 1}})
    code, said = await terminal("plan", "tenant", "told", "-n", NAMESPACE, "-o", "json")
    assert (code, json.loads(said)) == (0, written)
    code, said = await terminal("plan", "tenant", "told", "-n", NAMESPACE)
    assert code == 0
    assert said.startswith("rebuild    is under way; this is what was foreseen before it started\nchange     analyser ")
    assert "\ncost       0.02 EUR (1.10 EUR a GPU-hour of a10)\n" in said
    path = f"{path_of('searchtenants', 'told')}/status"
    await terminal.api.patch(path, {"status": {"observedGeneration": 0, "plan": None}})
    code, said = await terminal("plan", "tenant", "told", "-n", NAMESPACE)
    assert code == 1
    assert said == (
        "the operator has seen generation 0 and the object is at 1: this may not be of its present spec\n"
        f"no rebuild of {NAMESPACE}/told is wanted\n"
    )
    assert await terminal("plan", "tenant", "told", "-n", NAMESPACE, "-o", "json") == (
        1,
        "the operator has seen generation 0 and the object is at 1: this may not be of its present spec\nnull\n",
    )


async def test_the_plan_of_a_rollout_is_printed_and_ends_with_its_candidate(terminal: Terminal) -> None:
    written = yaml.safe_load((SAMPLES / "embeddingmodels.yaml").read_text(encoding="utf-8"))["status"]["plan"]
    path = f"{path_of('embeddingmodels', 'told')}/status"
    await terminal.api.patch(path, {"status": {"observedGeneration": 1}})
    code, said = await terminal("plan", "model", "told", "-o", "json")
    assert (code, json.loads(said)) == (0, written)
    code, said = await terminal("plan", "model", "told")
    assert code == 0
    assert said.startswith(f"candidate  {written['revision']}\nrollout    ")
    await terminal.api.patch(path, {"status": {"plan": None}})
    assert await terminal("plan", "model", "told") == (1, "model told has no candidate that is built\n")


async def test_a_plan_of_what_is_not_there_or_never_rebuilt_is_refused(terminal: Terminal) -> None:
    code, said = await terminal("plan", "tenant", "nobody", "-n", NAMESPACE)
    assert (code, f"kubectl get searchtenants.searchops.dev -n {NAMESPACE}" in said) == (2, True)
    code, said = await terminal("plan", "reindex", "told", "-n", NAMESPACE)
    assert (code, said) == (2, "kind 'reindex'; wanted tenant or model\n")
    code, said = await terminal("plan", "tenant", "told")
    assert (code, "wanted --namespace NAME" in said) == (2, True)
    code, said = await terminal("plan", "tenant", "told", "-n", NAMESPACE, "-o", "yaml")
    assert (code, "wanted table or json" in said) == (2, True)
