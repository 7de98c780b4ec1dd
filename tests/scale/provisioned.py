"""A fleet that was provisioned by the operator itself, tenant by tenant, and bound to a promoted model."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from scale.fleet import ApiServer, Cells, Events, ReindexJobs, Secrets
from scale.replica import MODELS, TENANTS, Replica, World
from searchops.api.retrieval import Binding, dense_vector
from searchops.planning.names import KEY_BINDING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from searchops.runtime.key import Identity

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TENANTS_A_CELL = 770
NAMESPACES = 50
SPACE = "5ace5ace5ace"
DIMENSION = 384
CREATED = "2026-11-01T00:00:00Z"
CHUNK = 500
"""Objects of one page of the initial list, as the watch host asks for them."""


@dataclass(frozen=True)
class Provisioned:
    """What provisioning left behind, and what it took.

    Attributes:
        writes: most API writes to one tenant's object between its creation and its last status before the model.
        fewest: fewest of the same.
        secrets: Secrets written for one tenant.
        seconds: for all tenants, from creation to the last status before the model.
    """

    world: World
    model: dict[str, Any]
    objects: list[dict[str, Any]]
    listed: list[Identity]
    writes: int
    fewest: int
    secrets: float
    seconds: float
    unready: int


async def provision(tenants: int, *, burst: int, timeout: float = 300.0) -> Provisioned:
    """Create tenants as another client would, `burst` at once, then promote a model under all of them."""
    world = World(Cells(-(-tenants // TENANTS_A_CELL)), Secrets(), ReindexJobs(), Events())
    replica = Replica(world)
    api = ApiServer(replica.deliver)
    async with running(replica, api):
        model = _model()
        api.put(MODELS, model)
        await asyncio.sleep(0)
        start = time.perf_counter()
        for first in range(0, tenants, burst):
            until = min(tenants, first + burst)
            for number in range(first, until):
                api.put(TENANTS, _tenant(number))
            await replica.settled(until, timeout=timeout)
        seconds = time.perf_counter() - start
        counts = [api.writes[key] for key in replica.tenants.keys()]  # noqa: SIM118 - a cache is no mapping
        secrets, unready = world.secrets.writes / tenants, len(replica.unready())
        _rebuild_everything(world.cells)
        api.put(MODELS, {**model, "status": _promoted()})
        await asyncio.sleep(0.05)
        await replica.settled(tenants, timeout=timeout)
        if replica.failures:
            raise AssertionError(f"{len(replica.failures)} passes failed, first: {replica.failures[0]}")
    return Provisioned(
        world,
        next(iter(api.objects(MODELS))),
        list(api.objects(TENANTS)),
        api.identities(TENANTS),
        max(counts),
        min(counts),
        secrets,
        seconds,
        unready + len(replica.unready()),
    )


@asynccontextmanager
async def running(replica: Replica, api: ApiServer) -> AsyncIterator[None]:
    """The replica at work; what its tasks raise is raised here."""
    task = asyncio.create_task(replica.run(api))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            raise RuntimeError("the replica died") from task.exception()


def _rebuild_everything(cells: Cells) -> None:
    """What a rollout's ReindexJobs leave once the rollback window has passed."""
    for cell in cells.by_name.values():
        cell.survey = None
        for name, found in cell.collections.items():
            bound = Binding.from_metadata(found.metadata[KEY_BINDING]).model_copy(
                update={
                    "model": "shop-encoder",
                    "revision": _revision()["revision"],
                    "encoder": _revision()["revision"],
                    "vector": dense_vector(SPACE),
                    "dimension": DIMENSION,
                    "manifest_digest": _revision()["manifestDigest"],
                }
            )
            metadata = {**found.metadata, KEY_BINDING: bound.to_metadata()}
            cell.collections[name] = replace(
                found, points=5_000, dense={dense_vector(SPACE): DIMENSION}, metadata=metadata
            )


def _tenant(number: int) -> dict[str, Any]:
    """A tenant of the examples under another name."""
    raw: dict[str, Any] = json.loads(_example_tenant())
    name = f"merchant-{number:05}"
    raw["metadata"] = {
        "name": name,
        "namespace": f"merchants-{number % NAMESPACES:02}",
        "uid": f"00000000-0000-4000-8000-{number:012}",
        "generation": 1,
        "creationTimestamp": CREATED,
        "labels": {"vertical": "fasteners"},
    }
    for entry in raw["spec"]["access"]:
        entry["secretName"] = f"{name}-{entry['name']}"
    return raw


@cache
def _example_tenant() -> str:
    documents = yaml.safe_load_all((EXAMPLES / "tenants.yaml").read_text(encoding="utf-8"))
    return json.dumps(next(one for one in documents if one["kind"] == "SearchTenant"))


def _model() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((EXAMPLES / "models" / "shop-encoder-r1.yaml").read_text(encoding="utf-8"))
    raw["metadata"] |= {"uid": "00000000-0000-4000-9000-000000000000", "generation": 1, "creationTimestamp": CREATED}
    raw["status"] = {"nextNumber": 1}
    return raw


def _revision() -> dict[str, Any]:
    return {
        "revision": "shop-encoder-r1-d3836a1d",
        "number": 1,
        "digest": "sha256:" + "d3836a1d" * 8,
        "space": SPACE,
        "dimension": DIMENSION,
        "maxTokens": 128,
        "manifestDigest": "sha256:" + "ab" * 32,
        "promotedAt": CREATED,
    }


def _promoted() -> dict[str, Any]:
    return {"nextNumber": 2, "phase": "Promoted", "active": _revision()}
