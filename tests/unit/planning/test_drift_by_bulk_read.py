"""What a bulk read shows of a tenant: nothing where all is as declared, and each single thing that somebody changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.cell_reads import outline
from searchops.api.observed import CellContents, CellIdentity, CollectionOutline
from searchops.planning.drift import difference, index_difference, orphans, picture
from searchops.planning.names import KEY_BINDING, KEY_DELETED_AT, KEY_FLEET, KEY_RATES, KEY_UID
from searchops.planning.schema import rates_of, side_of, strict_mode
from unit.planning import tenant_cases as case

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops.api.observed import CollectionState
    from searchops.api.v1alpha1 import SearchTenant

NAME = f"{case.ALIAS}@g1"
SIDE = side_of(case.ALIAS, 1)
TENANT = case.make_tenant(status=case.expected_status(case.dense(1)).to_wire())


def as_outline(found: CollectionState) -> CollectionOutline:
    whole = (sorted(found.dense.items()), sorted(found.sparse), found.strict, sorted(found.metadata.items()))
    return CollectionOutline(
        found.name,
        hash(str(whole)),
        found.dense,
        found.sparse,
        found.shards,
        found.replicas,
        found.strict,
        found.metadata,
    )


def shown(*collections: CollectionOutline, aliases: dict[str, str] | None = None) -> CellContents:
    pointing = {case.ALIAS: NAME, SIDE: NAME} if aliases is None else aliases
    by_name = {item.name: item for item in collections}
    identity = CellIdentity("prod", "eu-1", "cluster-1")
    return CellContents(case.registration(), "1.18.3", identity, by_name, pointing, 0, "started")


GOOD = as_outline(case.make_collection(case.dense(1)))


def said(contents: CellContents, tenant: SearchTenant = TENANT) -> str:
    seen = picture(contents, alias=case.ALIAS, collection=NAME, generation=3)
    return difference(tenant, contents, seen, fleet="prod")


def without(outlined: CollectionOutline, *keys: str, **values: str) -> CollectionOutline:
    kept = {key: value for key, value in outlined.metadata.items() if key not in keys}
    return replace(outlined, metadata={**kept, **values})


def test_what_is_as_declared_needs_no_pass() -> None:
    assert said(shown(GOOD)) == ""


STRICTER = replace(GOOD, strict=replace(GOOD.strict, max_points=1) if GOOD.strict else None)
SABOTAGE: dict[str, tuple[CellContents, str]] = {
    "alias gone": (shown(GOOD, aliases={SIDE: NAME}), f"alias {case.ALIAS} points to nothing, wanted {NAME}"),
    "alias moved": (
        shown(GOOD, aliases={SIDE: NAME, case.ALIAS: "x"}),
        f"alias {case.ALIAS} points to x, wanted {NAME}",
    ),
    "side gone": (shown(GOOD, aliases={case.ALIAS: NAME}), f"the alias of its side points to nothing, wanted {NAME}"),
    "collection gone": (shown(aliases={}), f"collection {NAME} is gone"),
    "vector gone": (shown(replace(GOOD, dense={})), f"vectors d-s1 of the binding are not in {NAME} as they should be"),
    "strict mode": (shown(STRICTER), f"strict mode of {NAME} is not as spec.quotas wants it"),
    "strict mode off": (shown(replace(GOOD, strict=None)), f"strict mode of {NAME} is not as spec.quotas wants it"),
    "rates": (
        shown(without(GOOD, KEY_RATES)),
        f"the rates in the metadata of {NAME} are not as spec.quotas wants them",
    ),
    "owner": (
        shown(replace(GOOD, metadata={**GOOD.metadata, KEY_UID: "else"})),
        f"the metadata of {NAME} names another owner",
    ),
    "binding": (shown(without(GOOD, KEY_BINDING)), f"{KEY_BINDING} in the metadata of {NAME} cannot be read"),
    "shards": (shown(replace(GOOD, shards=2)), "shards 2 → 1 (spec.sharding.shards)"),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_each_thing_that_somebody_changed_is_named(what: str) -> None:
    contents, expected = SABOTAGE[what]
    assert said(contents) == expected
    before = picture(shown(GOOD), alias=case.ALIAS, collection=NAME, generation=3)
    after = picture(contents, alias=case.ALIAS, collection=NAME, generation=3)
    assert after != before or what not in ("alias gone", "alias moved", "side gone", "collection gone")


def test_another_binding_than_the_status_tells_is_named() -> None:
    bound = as_outline(case.make_collection(case.dense(2)))
    assert said(shown(bound)).startswith(f"{NAME} is bound to {case.revision(2).revision}, the status says")


@pytest.mark.parametrize("quotas", [{}, {"searchesPerMinute": 60, "writesPerMinute": 60, "maxVectorMegabytes": 5}])
@pytest.mark.parametrize("filling", [True, False])
def test_what_a_rebuild_lifts_is_no_drift(*, filling: bool, quotas: dict[str, int]) -> None:
    tenant = case.make_tenant({"quotas": quotas}, status=case.expected_status(case.dense(1)).to_wire())
    pending, previous = (case.dense(2), None) if filling else (None, case.dense(2))
    lifted = as_outline(case.make_collection(case.dense(1), pending=pending, previous=previous))
    lifted = replace(lifted, strict=strict_mode(tenant.spec, lifted=True, filling=filling))
    lifted = without(lifted, **{KEY_RATES: rates_of(tenant.spec).to_metadata()})
    assert said(shown(lifted), tenant) == ""
    settled = replace(lifted, strict=strict_mode(tenant.spec, lifted=False))
    assert (said(shown(settled), tenant) == "") is (quotas == {})


def test_a_payload_index_is_missed_by_its_type_too() -> None:
    found = case.make_collection(case.dense(1))
    assert index_difference(TENANT, found) == ""
    assert "price" in index_difference(TENANT, replace(found, indexes={**found.indexes, "price": "keyword"}))
    fewer = {name: kind for name, kind in found.indexes.items() if name != "sku"}
    assert "sku" in index_difference(TENANT, replace(found, indexes=fewer))


ORPHAN: dict[str, tuple[Callable[[CollectionOutline], CollectionOutline], bool]] = {
    "nobody's": (lambda item: item, True),
    "tombstone": (lambda item: replace(item, metadata={**item.metadata, KEY_DELETED_AT: case.STAMP}), False),
    "another fleet's": (lambda item: replace(item, metadata={**item.metadata, KEY_FLEET: "test"}), False),
    "a stranger's": (lambda item: replace(item, metadata={}), False),
    "no owner": (lambda item: without(item, KEY_UID), False),
}


@pytest.mark.parametrize("what", ORPHAN)
def test_only_our_fleets_collections_without_owner_and_note_are_orphans(what: str) -> None:
    change, orphaned = ORPHAN[what]
    contents = shown(change(GOOD))
    none: frozenset[Any] = frozenset()
    assert orphans(contents, fleet="prod", uids=none, names=none) == ((NAME,) if orphaned else ())


def test_a_tenant_of_that_uid_or_that_name_answers_for_a_collection() -> None:
    none: frozenset[Any] = frozenset()
    assert orphans(shown(GOOD), fleet="prod", uids=frozenset({"uid-1"}), names=none) == ()
    assert orphans(shown(GOOD), fleet="prod", uids=none, names=frozenset({("shop", "acme")})) == ()
    assert orphans(shown(GOOD), fleet="prod", uids=frozenset({"x"}), names=frozenset({("shop", "x")})) == (NAME,)


METADATA = st.dictionaries(
    st.sampled_from([KEY_FLEET, KEY_UID, KEY_DELETED_AT, "searchops.dev/namespace", "searchops.dev/name", "other"]),
    st.sampled_from(["prod", "test", "uid-1", "shop", "acme", ""]),
)


@given(METADATA, st.frozensets(st.sampled_from(["uid-1", "uid-2"])))
def test_no_collection_of_a_known_uid_or_another_fleet_is_ever_an_orphan(
    metadata: dict[str, str], uids: frozenset[str]
) -> None:
    found = orphans(shown(replace(GOOD, metadata=metadata)), fleet="prod", uids=uids, names=frozenset())
    ours = metadata.get(KEY_FLEET) == "prod" and metadata.get(KEY_UID) and KEY_DELETED_AT not in metadata
    assert bool(found) == bool(ours and metadata[KEY_UID] not in uids)


PARAMS: dict[str, Any] = {
    "vectors": {"d-aaa": {"size": 4, "distance": "Cosine"}},
    "sparse_vectors": {"lex": {"modifier": "idf"}},
    "shard_number": 2,
    "replication_factor": 3,
}
CONFIG: dict[str, Any] = {
    "params": PARAMS,
    "strict_mode_config": {"enabled": True, "max_points_count": 5},
    "metadata": {KEY_UID: "u", "nested": {"x": 1}},
    "hnsw_config": {"m": 16},
}


def test_an_outline_has_what_is_declared_and_its_digest_moves_with_nothing_else() -> None:
    found = outline("x", CONFIG)
    assert (found.dense, found.sparse, found.shards, found.replicas) == ({"d-aaa": 4}, frozenset({"lex"}), 2, 3)
    assert found.metadata == {KEY_UID: "u"}
    assert found.strict is not None and found.strict.max_points == 5
    assert outline("x", {**CONFIG, "hnsw_config": {"m": 32}}).digest == found.digest
    changes: tuple[dict[str, Any], ...] = (
        {"metadata": {}},
        {"strict_mode_config": None},
        {"params": {**PARAMS, "shard_number": 1}},
    )
    for changed in changes:
        assert outline("x", {**CONFIG, **changed}).digest != found.digest
