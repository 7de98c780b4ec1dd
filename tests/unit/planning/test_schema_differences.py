"""What a tenant's collection should look like, and what its difference means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.observed import StrictMode
from searchops.api.rates import MerchantRates
from searchops.planning.binding_state import BindingState
from searchops.planning.schema import (
    NO_LIMIT,
    SchemaDifference,
    collection_design,
    compare_schema,
    indexes_of,
    schema_digest,
    strict_mode,
)
from unit.planning import tenant_cases as case

NONE = SchemaDifference((), None, ())
QUOTAS = {"maxPoints": 9, "maxVectorMegabytes": 8, "searchesPerMinute": 60, "writesPerMinute": 6000}


def test_a_collection_as_designed_differs_in_nothing() -> None:
    live, bound = case.make_collection(case.dense(1)), case.dense(1)
    assert compare_schema(case.make_tenant().spec, live, BindingState(bound, None, None)) == NONE


def test_what_the_server_adds_by_itself_is_no_drift() -> None:
    live = case.make_collection(case.dense(1))
    live = replace(live, indexes={**live.indexes, "extra": "text"}, sparse=live.sparse | {"lex-other"}, status="yellow")
    assert compare_schema(case.make_tenant().spec, live, BindingState(case.dense(1), None, None)) == NONE


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        ({"languages": ["fi"]}, {}, "(spec.languages)"),
        ({"document": "{title} {sku}"}, {}, "(spec.document)"),
        ({"sharding": {"shards": 2}}, {}, "shards 1 → 2 (spec.sharding.shards)"),
        ({"sharding": {"replicas": 2}}, {}, "replicas 1 → 2 (spec.sharding.replicas)"),
        ({}, {"dense": {}}, "vectors d-s1 of the binding"),
        ({}, {"dense": {"d-s1": 9}}, "vectors d-s1 of the binding"),
        ({}, {"sparse": frozenset()}, "vectors lex-"),
    ],
)
def test_what_cannot_change_in_place_needs_a_rebuild(spec: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    live = replace(case.make_collection(case.dense(1)), **changes)
    found = compare_schema(case.make_tenant(spec).spec, live, BindingState(case.dense(1), None, None))
    assert len(found.rebuild) == 1
    assert said in found.rebuild[0]


def test_indexes_are_the_filters_and_codes_and_what_retrieval_filters_on() -> None:
    assert indexes_of(case.make_tenant().spec) == (
        ("_deleted", "integer"),
        ("_missed", "keyword"),
        ("_version", "integer"),
        ("price", "float"),
        ("sku", "keyword"),
    )


def test_quotas_become_strict_mode_as_the_database_counts() -> None:
    spec = case.make_tenant({"quotas": QUOTAS, "sharding": {"shards": 4}}).spec
    assert strict_mode(spec, lifted=False) == StrictMode(9, 8_000_000, 360, 1500, 512, 1000)
    assert strict_mode(spec, lifted=True) == StrictMode(9, 16_000_000, 360, NO_LIMIT, 512, 1000)
    filling = StrictMode(9, 16_000_000, NO_LIMIT, NO_LIMIT, 512, 1000)
    assert strict_mode(spec, lifted=True, filling=True) == filling


@given(writes=st.integers(1, 100_000_000), shards=st.integers(1, 64))
def test_a_write_limit_never_refuses_the_largest_batch_nor_halves_the_merchants_rate(writes: int, shards: int) -> None:
    spec = case.make_tenant({"quotas": {"writesPerMinute": writes}, "sharding": {"shards": shards}}).spec
    limit = strict_mode(spec, lifted=False).writes_per_minute
    assert limit >= 512
    assert limit * shards >= writes
    assert limit <= max(512, writes)


def test_no_bound_is_written_as_a_number_since_a_limit_cannot_be_unset() -> None:
    found = strict_mode(case.make_tenant().spec, lifted=False)
    numbers = (found.max_points, found.max_vector_bytes, found.reads_per_minute, found.writes_per_minute)
    assert numbers == (NO_LIMIT,) * 4 == (4_000_000_000,) * 4


def test_a_design_has_named_vectors_only_and_says_whose_it_is() -> None:
    tenant, bound = case.make_tenant(), case.dense(1, 2)
    found = collection_design(tenant, case.OWNER, 2, bound)
    a8 = bound.analyser_id
    assert (found.name, found.dense, found.sparse) == ("prod.shop.acme@g2", (("d-s1", 8),), (f"lex-{a8}", f"tri-{a8}"))
    assert dict(found.metadata) == {
        "searchops.dev/fleet": "prod",
        "searchops.dev/uid": "uid-1",
        "searchops.dev/namespace": "shop",
        "searchops.dev/namespace-uid": "ns-uid",
        "searchops.dev/name": "acme",
        "searchops.dev/generation": "2",
        "searchops.dev/binding": bound.to_metadata(),
        "searchops.dev/rates": '{"searchesPerMinute":0,"writesPerMinute":0}',
    }


def test_ownership_is_fleet_and_uid_never_the_name_alone() -> None:
    live = case.make_collection(case.dense(1))
    assert case.OWNER.owns(live)
    assert not case.OWNER.owns(case.rebind(live, uid="another"))
    assert not case.OWNER.owns(case.rebind(live, fleet="another"))
    assert not case.OWNER.owns(replace(live, metadata={}))


def test_the_schema_digest_follows_what_a_rebuild_is_made_for() -> None:
    plain = schema_digest(case.make_tenant().spec)
    changed = ({"languages": ["fi"]}, {"document": "{sku}"}, {"sharding": {"shards": 2}}, {"sharding": {"replicas": 2}})
    assert len({plain, *(schema_digest(case.make_tenant(spec).spec) for spec in changed)}) == 5
    assert schema_digest(case.make_tenant({"quotas": QUOTAS}).spec) == plain


@pytest.mark.parametrize("lifted", [False, True])
def test_the_gateway_is_told_the_merchants_own_rates_whatever_strict_mode_makes_of_them(lifted: bool) -> None:
    tenant = case.make_tenant({"quotas": QUOTAS, "sharding": {"shards": 4}})
    bound = case.dense(1, 1)
    design = collection_design(tenant, case.OWNER, 1, bound, lifted=lifted)
    told = dict(design.metadata)["searchops.dev/rates"]
    assert MerchantRates.from_metadata(told) == MerchantRates(searches_per_minute=60, writes_per_minute=6000)


def test_changed_rates_are_written_again_and_nothing_is_rebuilt_for_them() -> None:
    live = case.make_collection(case.dense(1))
    assert compare_schema(case.make_tenant().spec, live, BindingState(case.dense(1), None, None)).rates is None
    spec = case.make_tenant({"quotas": {"searchesPerMinute": 60}}).spec
    found = compare_schema(spec, live, BindingState(case.dense(1), None, None))
    assert (found.rates, found.rebuild) == ('{"searchesPerMinute":60,"writesPerMinute":0}', ())
    older = replace(live, metadata={k: v for k, v in live.metadata.items() if k != "searchops.dev/rates"})
    found = compare_schema(case.make_tenant().spec, older, BindingState(case.dense(1), None, None))
    assert found.rates == '{"searchesPerMinute":0,"writesPerMinute":0}', "a collection of an older version gets them"
