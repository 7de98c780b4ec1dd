"""A tenant that is Ready, and what it is bound to, for the tests of its life and of its end."""

from __future__ import annotations

from searchops.planning.names import KEY_BINDING
from unit.controllers.fakes_tenant_world import TenantWorld


async def provisioned(documents: int = 5) -> TenantWorld:
    """A Ready tenant on the lexical legs."""
    world = TenantWorld()
    world.set_model()
    world.apply_tenant()
    await world.settle()
    for product in range(documents):
        world.write_document(product)
    return world


def bound(world: TenantWorld) -> str | None:
    assert world.live is not None
    binding = world.live.binding(KEY_BINDING)
    assert binding is not None
    return binding.revision


def complete(world: TenantWorld) -> bool:
    """Every live document in its last version, and no other, with the vector that searches ask for."""
    assert world.live is not None
    binding = world.live.binding(KEY_BINDING)
    assert binding is not None
    wanted = binding.vector or ""
    return {product: point.versions.get(wanted) for product, point in world.live.points.items()} == world.documents
