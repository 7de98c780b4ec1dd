"""Tenants whose model or cell is not there: said by name, others untouched, nothing lost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from searchops_sandbox.demo.buckets import CATALOGUES
from searchops_sandbox.fleet import Fleet, condition_of, tenant_manifest
from searchops_sandbox.processes import SandboxError
from searchops_sandbox.registration import NAMESPACE

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]


async def test_a_tenant_that_names_no_model_says_so_and_is_searchable(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    await fleet.apply(tenant_manifest("orphan", region="eu", model="no-such-model"))
    found = await fleet.condition("searchtenants", "orphan", "ModelBound", "False", "ModelNotFound")
    assert "spec.model.name" in found["message"]
    assert "'no-such-model'" in found["message"]
    await fleet.condition("searchtenants", "orphan", "Searchable", "True")
    assert (await fleet.index("orphan"))[0] == 200
    assert await fleet.hits("orphan")
    ready = condition_of(await fleet.get("searchtenants", "orphan"), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ModelNotFound")
    await fleet.delete("searchtenants", "orphan")


async def test_an_indexed_line_that_is_not_json_is_named_and_the_others_are_written(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    before = await fleet.hits("beta")
    first = (CATALOGUES / "fasteners-en.jsonl").read_bytes().splitlines()[0]
    status, answer = await fleet.index("beta", first + b"\n{not json\n")
    assert (status, answer["written"]) == (207, 1), answer
    (rejected,) = answer["rejected"]
    assert rejected["index"] == 1
    assert "'{not json'" in rejected["detail"]
    assert "wanted one object a line" in rejected["detail"]
    assert await fleet.hits("beta") == before


async def test_a_catalogue_line_that_is_not_json_is_named_by_file_and_line(tmp_path: Path) -> None:
    catalogue, queries = tmp_path / "broken.jsonl", tmp_path / "queries.jsonl"
    first = (CATALOGUES / "fasteners-en.jsonl").read_text().splitlines()[0]
    catalogue.write_text(f"{first}\n{{not json\n")
    queries.write_text('{"id": "q1", "text": "m12 nut", "lang": "en"}\n')
    code, said = await _worker(
        "retrieve",
        *("--catalogue", str(catalogue), "--queries", str(queries), "--profile", "plain"),
        *("--out", str(tmp_path / "out.run")),
    )
    assert code != 0
    assert f"{catalogue}:2" in said.replace("\n", ""), said
    assert "Traceback" not in said
    assert not (tmp_path / "out.run").exists()


async def _worker(*arguments: str) -> tuple[int | None, str]:
    program = Path(sys.executable).parent / "searchops-worker"
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_cell_that_is_down_is_named_by_its_own_tenants_alone(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    cell = fleet.platform.sandbox.cells["us-1"]
    before = {name: await fleet.hits(name) for name in merchants}
    collections = await fleet.collections(cell)
    await cell.kill()
    try:
        found = await fleet.condition("searchtenants", "gamma", "Ready", "False", "CellUnreachable")
        assert "us-1" in found["message"]
        with pytest.raises(SandboxError, match="answered 5"):
            await fleet.hits("gamma")
        for name in ("alpha", "beta"):
            assert condition_of(await fleet.get("searchtenants", name), "Ready")["status"] == "True"
            assert await fleet.hits(name) == before[name]
    finally:
        await cell.start()
    await fleet.condition("searchtenants", "gamma", "Ready", "True")
    assert await fleet.collections(cell) == collections
    assert await fleet.hits("gamma") == before["gamma"]


async def test_a_drained_cell_takes_nobody_new_and_keeps_whom_it_has(
    fleet: Fleet, merchants: tuple[str, str, str]
) -> None:
    before = await fleet.hits("beta")
    await _annotate_cell(fleet, "eu-1", {"searchops.dev/drain": "true"})
    try:
        await fleet.apply(tenant_manifest("late", region="eu"))
        found = await fleet.condition("searchtenants", "late", "Placed", "False", "NoCapacity")
        assert "eu-1 holds " in found["message"]
        assert "is drained (searchops.dev/drain on its Secret)" in found["message"]
        assert (await fleet.index("beta"))[0] == 200, "who lives there is served and written as ever"
        assert await fleet.hits("beta") == before
        await fleet.apply(tenant_manifest("beta", region="eu", undelete_window="96h"))
        generation = (await fleet.get("searchtenants", "beta"))["metadata"]["generation"]

        async def observed() -> bool:
            status = (await fleet.get("searchtenants", "beta"))["status"]
            return bool(status["observedGeneration"] == generation)

        await fleet.until("beta's change is served on the drained cell", observed)
        assert condition_of(await fleet.get("searchtenants", "beta"), "Ready")["status"] == "True"
    finally:
        await _annotate_cell(fleet, "eu-1", {"searchops.dev/drain": None})
    await fleet.condition("searchtenants", "late", "Ready", "True")
    await fleet.delete("searchtenants", "late")


async def _annotate_cell(fleet: Fleet, cell: str, annotations: dict[str, str | None]) -> None:
    async with fleet.platform.sandbox.api() as api:
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{cell}"
        await api.patch(path, {"metadata": {"annotations": annotations}})
