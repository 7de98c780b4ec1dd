"""The lives of a model that several tests tell: promoted, changed, seen through its conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchops.planning.names import model_parts, revision_name
from unit.controllers.fakes_model import ModelWorld, raw_model, raw_tenant

if TYPE_CHECKING:
    from unit.controllers.fakes_numbered_faults import Faults

A, B = (revision_name("shop", number, f"sha256:{digest * 64}") for number, digest in ((1, "a"), (2, "b")))
READY = {part: "READY" for part in model_parts(A)}


async def rolled_out(faults: Faults | None = None, **outcomes: str) -> ModelWorld:
    """r1 is promoted and its tenant bound."""
    world = ModelWorld(faults, outcomes)
    world.tenants.apply("ADDED", raw_tenant())
    world.api.put(raw_model())
    await world.settle()
    return world


def condition(world: ModelWorld, kind: str) -> tuple[str, str]:
    return next((one["status"], one["reason"]) for one in world.status["conditions"] if one["type"] == kind)


def change(world: ModelWorld, digest: str, **spec: Any) -> None:
    old = world.api.objects["shop"]
    raw = raw_model(digest, **spec)
    raw["metadata"] = {**old["metadata"], **raw["metadata"], "generation": old["metadata"]["generation"] + 1}
    world.api.put({**raw, "status": old.get("status", {})})
