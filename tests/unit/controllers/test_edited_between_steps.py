"""A tenant that is edited while the operator works on it, between any two calls: the last spec is what it ends at."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from searchops.api.v1alpha1 import SearchTenant
from searchops.planning.names import KEY_BINDING, KEY_PENDING, KEY_PREVIOUS, KEY_RATES
from searchops.planning.schema import analyser_settings, field_roles, indexes_of, rates_of, strict_mode
from searchops.runtime.key import Key
from unit.controllers.fakes_tenant_world import ACCESS, ALIAS, FIELDS, TenantWorld, revision

PRICE = {"name": "price", "type": "float", "role": "Filter"}
MOVED = [{**ACCESS[0], "secretName": "acme-shop"}, ACCESS[1]]
EDITS: dict[str, dict[str, Any]] = {
    "german": {"languages": ["de"]},
    "english": {"languages": ["en"]},
    "another document": {"document": "{title} {sku}"},
    "two shards": {"sharding": {"shards": 2, "replicas": 1}},
    "one shard": {"sharding": {"shards": 1, "replicas": 1}},
    "quotas": {"quotas": {"maxPoints": 500, "searchesPerMinute": 60, "writesPerMinute": 600}},
    "no quotas": {"quotas": {}},
    "a filter": {"fields": [*FIELDS, PRICE]},
    "a filter of another type": {"fields": [*FIELDS, {**PRICE, "type": "integer"}]},
    "plain fields": {"fields": FIELDS},
    "one entry": {"access": ACCESS[:1]},
    "no entry": {"access": []},
    "another Secret": {"access": MOVED},
    "both entries": {"access": ACCESS},
    "a plain profile": {"retrieval": {"profile": "plain"}},
    "paused": {"paused": True},
    "going on": {"paused": False},
    "a policy": {"deletionPolicy": "Delete", "undeleteWindow": "1h"},
}
NAMES = sorted(EDITS)


class Editor:
    """Somebody who edits the tenant while calls are under way."""

    def __init__(self, world: TenantWorld) -> None:
        self.world = world
        self.spec: dict[str, Any] = {}
        self.made = 0

    def edit(self, name: str) -> None:
        self.spec |= EDITS[name]
        self.made += 1
        self.world.apply_tenant(**self.spec)

    async def among(self, edits: dict[int, str], passes: int = 30) -> None:
        """Passes with these edits, each after the call of its number, counted from now."""
        first = len(self.world.faults.calls)

        def between(name: str) -> None:
            chosen = edits.pop(len(self.world.faults.calls) - first - 1, None)
            if chosen is not None:
                self.edit(chosen)

        self.world.faults.between = between
        for _ in range(passes):
            wait = await self.world.step()
            self.world.work()
            self.world.now += timedelta(seconds=min(wait or 0.0, 60.0))
            if not edits:
                break
        self.world.faults.between = None


async def provisioned() -> TenantWorld:
    world = TenantWorld()
    world.set_model(revision(1))
    world.apply_tenant()
    return world


async def at_rest(world: TenantWorld, editor: Editor) -> None:
    """The last spec, unpaused, after every window has ended: exactly what it says, and nothing twice."""
    editor.edit("going on")
    await world.settle(passes=120)
    world.now += timedelta(hours=80)
    await world.settle(passes=120)
    raw = world.raw
    assert raw is not None
    tenant = SearchTenant.model_validate(raw)
    assert world.cells.broken == []
    assert world.condition("Ready") == ("True", "Ready")
    assert tenant.status.observed_generation == tenant.metadata.generation
    assert {item.observed_generation for item in tenant.status.conditions} == {tenant.metadata.generation}
    assert_collection(world, tenant)
    assert_access(world, tenant)
    assert_made_once(world)


def assert_collection(world: TenantWorld, tenant: SearchTenant) -> None:
    live, spec = world.live, tenant.spec
    assert live is not None
    assert set(world.server.collections) == {live.design.name}, "no half-made generation is left"
    assert set(world.server.aliases.values()) == {live.design.name}
    binding = live.binding(KEY_BINDING)
    assert binding is not None
    assert (binding.analyser, binding.document) == (analyser_settings(spec), spec.document)
    assert (binding.fields, binding.profile.name) == (field_roles(spec), spec.retrieval.profile)
    assert binding.revision == revision(1)["revision"]
    assert not {KEY_PENDING, KEY_PREVIOUS} & set(live.metadata)
    assert (live.design.shards, live.strict) == (spec.sharding.shards, strict_mode(spec, lifted=False))
    assert live.metadata[KEY_RATES] == rates_of(spec).to_metadata()
    assert dict(indexes_of(spec)).items() <= live.indexes.items()
    assert {product: point.versions.get("d-s1") for product, point in live.points.items()} == world.documents


def assert_access(world: TenantWorld, tenant: SearchTenant) -> None:
    """One Secret and one valid token for each entry, and none beside."""
    wanted = {entry.secret_name for entry in tenant.spec.access}
    assert {key.name for key in world.secrets.secrets} == wanted
    assert set(tenant.status.access_secrets) == wanted
    grants = (world.server.grants or {}).values()
    assert Counter(grant.secret for grant in grants) == Counter(wanted)


def assert_made_once(world: TenantWorld) -> None:
    # A rebuild that an edit called off, and the next edit wants after all, is begun again under the same name.
    begun = Counter(world.jobs.created) - Counter(world.jobs.deleted)
    assert max(begun.values(), default=0) <= 1, "one rebuild is never begun twice"
    jobs = [key for plural, key in world.api.objects if plural == "reindexjobs"]
    named = ((world.raw or {}).get("status", {}).get("rebuild") or {}).get("reindexJob")
    assert named is None
    for key in jobs:
        phase = world.api.objects["reindexjobs", key].get("status", {}).get("phase")
        assert phase in ("Verified", "Failed", "Cancelled"), f"{key} is left running for nobody"


async def _history(during: list[tuple[int, str]], after: list[tuple[int, str]]) -> None:
    world = await provisioned()
    editor = Editor(world)
    await editor.among(dict(during))
    for product in range(3):
        world.write_document(product)
    await editor.among(dict(after))
    await at_rest(world, editor)


MOMENTS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(NAMES)), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(during=MOMENTS, after=MOMENTS)
@example(during=[(26, "a filter")], after=[(14, "two shards"), (22, "one shard")])
def test_whatever_is_edited_between_whichever_calls_it_ends_at_the_last_spec(
    during: list[tuple[int, str]], after: list[tuple[int, str]]
) -> None:
    with asyncio.Runner() as runner:
        runner.run(_history(during, after))


@pytest.mark.parametrize("seed", range(6))
async def test_an_edit_after_every_single_call_ends_at_the_last_spec(seed: int) -> None:
    """As many edits as calls: no pass ever sees the spec that it began with."""
    world = await provisioned()
    editor = Editor(world)
    calm = [name for name in NAMES if name != "paused"]
    await editor.among({number: calm[(number * 7 + seed) % len(calm)] for number in range(80)}, passes=40)
    assert editor.made >= 20
    await at_rest(world, editor)


@pytest.mark.parametrize("edit", ["german", "another Secret", "no entry", "paused", "two shards", "quotas"])
async def test_one_edit_after_each_call_of_a_creation_ends_as_if_it_had_been_there_before(edit: str) -> None:
    first = await provisioned()
    await first.settle()
    calls = len(first.faults.calls)
    assert calls >= 20
    for number in range(calls):
        world = await provisioned()
        editor = Editor(world)
        await editor.among({number: edit})
        await at_rest(world, editor)
        assert len([key for key in world.api.objects if key[1] == Key("shop", "acme")]) == 1
        assert ALIAS in world.server.aliases
