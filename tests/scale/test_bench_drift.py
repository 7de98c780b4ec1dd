"""The drift read of a whole fleet: 13 cells over HTTP, 10,000 tenants compared with what they declare."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from scale.figures import Bench, Target
from scale.provisioned import _tenant
from scale.served_cells import ServedCell
from searchops.adapters.qdrant import QdrantCells
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.cell_watch import CELL_INDEX, CellWatch, cells_of
from searchops.planning.binding_state import BindingState
from searchops.planning.names import CELL_ANNOTATION, FINALIZER
from searchops.planning.schema import Owner, collection_design, lexical_binding, profile_of, side_of
from searchops.runtime.cache import ObjectCache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.observed import CellRegistration, CollectionDesign, PoolRegistration
    from searchops.runtime.key import Key

from datetime import UTC, datetime

pytestmark = pytest.mark.scale

TENANTS = 10_000
CELLS = 13
POINTS = 5_000
ROUNDS = 5
CREATED = datetime(2026, 11, 1, tzinfo=UTC)


def provisioned(number: int, cell: str) -> tuple[dict[str, Any], CollectionDesign, dict[str, str]]:
    """A tenant with the status of one that is in order, its collection and its aliases."""
    raw = _tenant(number)
    raw["metadata"] |= {"annotations": {CELL_ANNOTATION: cell}, "finalizers": [FINALIZER], "resourceVersion": "1"}
    tenant = SearchTenant.model_validate(raw)
    metadata = tenant.metadata
    owner = Owner("prod", metadata.uid, metadata.namespace, f"uid-of-{metadata.namespace}", metadata.name)
    profile = profile_of(tenant.spec)
    assert profile is not None
    side = side_of(owner.alias, 1)
    binding = lexical_binding(tenant.spec, profile, side, CREATED)
    design = collection_design(tenant, owner, 1, binding)
    raw["status"] = {
        "observedGeneration": 1,
        "cell": cell,
        "alias": owner.alias,
        "collection": design.name,
        "binding": BindingState(binding, None, None).to_status().to_wire(),
        "isolation": {"mode": "Collection", "enforcedBy": "Database"},
        "usage": {"points": POINTS},
    }
    return raw, design, {owner.alias: design.name, side: design.name}


class Around:
    """Everything beside the cells: directory, reports, metrics, and the queue that is asked."""

    def __init__(self, cells: list[ServedCell]) -> None:
        self._cells = {cell.name: cell.registration for cell in cells}
        self.asked: list[Key] = []
        self.reports = 0

    def cells(self) -> Mapping[str, CellRegistration]:
        return self._cells

    def pools(self) -> Mapping[str, PoolRegistration]:
        return {}

    def ask(self, key: Key) -> bool:
        self.asked.append(key)
        return True

    async def read(self, name: str) -> dict[str, str] | None:
        raise AssertionError(name)

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        assert name
        assert data
        self.reports += 1

    def cell(self, name: str, *, up: bool, collections: int, capacity: int, orphans: int = 0) -> None:
        assert up, name
        assert (orphans, capacity) == (0, 800)
        assert collections

    def drifted(self, cell: str, tenants: int) -> None:
        assert cell
        assert tenants


async def measured() -> dict[str, list[float]]:
    """Seconds of wall clock and of CPU, and requests, of a first round and of rounds over a fleet in order."""
    cache: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
    cache.add_index(CELL_INDEX, cells_of)
    held: dict[str, list[tuple[CollectionDesign, dict[str, str]]]] = {f"cell-{n:02}": [] for n in range(CELLS)}
    for number in range(TENANTS):
        home = f"cell-{number % CELLS:02}"
        raw, design, aliases = provisioned(number, home)
        cache.apply(None, raw)
        held[home].append((design, aliases))
    figures: dict[str, list[float]] = {name: [] for name in ("wall", "cpu", "first", "drift", "load", "bytes", "found")}
    async with AsyncExitStack() as stack:
        cells = [
            await stack.enter_async_context(
                ServedCell(name, [d for d, _ in rows], {k: v for _, a in rows for k, v in a.items()}, POINTS)
            )
            for name, rows in held.items()
        ]
        ports = QdrantCells()
        stack.push_async_callback(ports.close)
        around = Around(cells)
        watch = CellWatch(
            fleet="prod", directory=around, cells=ports, tenants=cache, ask=around.ask, state=around, metrics=around
        )
        for number in range(ROUNDS + 1):
            wall, cpu = await _round(watch)
            asked = sum((cell.requests for cell in cells), Counter[str]())
            for cell in cells:
                cell.requests.clear()
            assert around.asked == [], "the fleet is in order"
            figures["first"] += [wall] if number == 0 else []
            figures["wall"] += [wall] if number else []
            figures["cpu"] += [cpu] if number else []
            figures["drift"].append(asked["/telemetry"] + asked["/aliases"])
            figures["load"].append(asked["/metrics"])
            assert sum(asked.values()) == figures["drift"][-1] + figures["load"][-1]
        assert around.reports == 1
        for cell in cells:
            cell.aliases.pop(next(iter(cell.aliases)))
            cell.bake()
        await watch.run_once()
        figures["found"].append(len(around.asked))
        figures["bytes"].append(sum(cell.size for cell in cells))
    return figures


async def _round(watch: CellWatch) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    assert await watch.run_once() == 0
    return time.perf_counter() - wall, time.process_time() - cpu


def test_the_drift_read_of_a_fleet() -> None:
    found = asyncio.run(measured())
    bench, label = Bench("tenants"), f"drift read of {TENANTS} tenants in {CELLS} cells"
    served = "answers made beforehand and served by the same process: its CPU time is in the figure"
    bench.record(f"{label}: a fleet in order", found["wall"], "s", Target("<=", 10), cells=served)
    bench.record(f"{label}: the same, CPU", found["cpu"], "CPU s", bytesRead=found["bytes"][0])
    bench.record(f"{label}: the first after a start", found["first"], "s", Target("<=", 10))
    bench.record(f"{label}: requests", found["drift"], "requests", Target("<=", 30), metrics=found["load"][0])
    assert set(found["drift"]) == {2 * CELLS}
    assert set(found["load"]) == {CELLS}
    assert found["found"] == [CELLS], "one alias was taken away on each cell"
