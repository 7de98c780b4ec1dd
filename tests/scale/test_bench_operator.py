"""Operator over many SearchTenants: what a tenant costs to create, and what a restart costs once all are there."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scale.figures import Bench, Target
from scale.provisioned import CHUNK, Provisioned, provision

pytestmark = pytest.mark.scale

TESTS = Path(__file__).resolve().parents[1]
SIZES = tuple(int(text) for text in os.environ.get("BENCH_TENANTS", "2000,10000").split(","))
BURST = int(os.environ.get("BENCH_BURST", "2000"))
REPEATS = {2_000: 3}
TARGET_SIZE = 10_000
FULLY = (
    "all imports and the initial list from memory are in it; the network, the API server, the cells and the writes' "
    "throttle are not: every port answers from memory after one turn of the event loop"
)


@pytest.fixture(scope="module", params=SIZES, ids=str)
def fleet(request: pytest.FixtureRequest) -> Provisioned:
    """A fleet of that size, provisioned by the operator's own code."""
    return asyncio.run(provision(int(request.param), burst=BURST))


def test_creating_a_tenant(fleet: Provisioned) -> None:
    tenants = len(fleet.objects)
    bench = Bench("create")
    limit = Target("<=", 2)
    bench.record(
        f"API writes to create one tenant, the most of {tenants}", [fleet.writes], "writes", limit, least=fleet.fewest
    )
    bench.record(
        f"provisioning of {tenants} tenants, {min(BURST, tenants)} created at once, ports in memory",
        [tenants / fleet.seconds],
        "tenants/s",
        ports=FULLY,
    )
    assert fleet.unready == 0
    assert fleet.fewest >= 1
    assert fleet.writes <= limit.value
    assert fleet.secrets == 2  # one an access entry of the example
    bound = [item["status"]["binding"]["revision"] for item in fleet.objects]
    assert set(bound) == {fleet.model["status"]["active"]["revision"]}


def test_restart_over_a_provisioned_fleet(fleet: Provisioned, tmp_path: Path) -> None:
    tenants = len(fleet.objects)
    answers = [restarted(fleet, fleet.objects, tmp_path) for _ in range(REPEATS.get(tenants, 1))]
    record(tenants, answers)
    for answer in answers:
        assert answer["reconciled"] == tenants
        assert answer["failures"] == []
        assert answer["unready"] == []
        assert answer["api_writes"] == 0
        assert (answer["cell_writes"], answer["secret_writes"], answer["reindex_job_writes"]) == (0, 0, 0)
        assert answer["events"] == 0


def test_the_count_of_writes_sees_what_differs(fleet: Provisioned, tmp_path: Path) -> None:
    """Three statuses that lost a field make three writes: a zero above is not a counter that never counts."""
    objects = [
        {**raw, "status": {**raw["status"], "phase": "Progressing"}} if number < 3 else raw
        for number, raw in enumerate(fleet.objects[:50])
    ]
    assert restarted(fleet, objects, tmp_path)["api_writes"] == 3


def restarted(fleet: Provisioned, objects: list[dict[str, Any]], directory: Path) -> dict[str, Any]:
    """One restart in a process of its own."""
    names = {raw["metadata"]["uid"] for raw in objects}
    path, out = directory / "fleet", directory / "answer.json"
    with path.open("wb") as file:
        pickle.dump((fleet.world, [one for one in fleet.listed if one.uid in names], fleet.model), file)
    with path.with_suffix(".pages").open("w", encoding="utf-8") as text:
        text.writelines(json.dumps(objects[at : at + CHUNK]) + "\n" for at in range(0, len(objects), CHUNK))
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    subprocess.run(
        [sys.executable, "-m", "scale.restart", str(path), str(out)], check=True, env=environment, timeout=280
    )
    answer: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return answer


def record(tenants: int, answers: list[dict[str, Any]]) -> None:
    """Figures of some restarts; the targets are promised at 10,000 tenants."""
    bench, promised = Bench("restart"), tenants == TARGET_SIZE
    label = f"restart over {tenants} tenants"
    first = answers[0]
    bench.record(
        f"{label}: all reconciled once",
        [one["seconds"] for one in answers],
        "s",
        Target("<=", 30) if promised else None,
        importSeconds=round(first["import_seconds"], 2),
        fillSeconds=round(first["fill_seconds"], 2),
        ports=FULLY,
    )
    bench.record(f"{label}: CPU", [one["cpu_seconds"] for one in answers], "CPU s")
    memory = {"imports": round(first["rss_imports_mb"], 1), "world": round(first["rss_world_mb"], 1)}
    bench.record(f"{label}: peak resident memory of the process", [one["rss_mb"] for one in answers], "MB", **memory)
    bench.record(
        f"{label}: the same without the in-memory cells and Secrets",
        [one["rss_mb"] - one["rss_world_mb"] for one in answers],
        "MB",
        Target("<=", 350) if promised else None,
        without="buffers and connections of real clients",
    )
    bench.record(f"{label}: API writes", [one["api_writes"] for one in answers], "writes", Target("==", 0))
    asked = [one["cell_requests"]["describe"] + one["cell_requests"]["probe"] for one in answers]
    bench.record(
        f"{label}: requests to cells, surveys apart", asked, "requests", surveys=first["cell_requests"]["survey"]
    )
    bench.record(f"{label}: Secrets read", [one["secret_reads"] for one in answers], "reads")
