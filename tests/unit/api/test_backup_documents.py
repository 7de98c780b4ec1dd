"""What a backup says of itself: when it is whole, whose it is, and which counts a restore may show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchops.api.backup import BackupManifest, SnapshotPart, index_uri, manifest_uri, tenant_prefix


def part(*shards: int, number: int = 0) -> SnapshotPart:
    return SnapshotPart(
        file=f"node-{number}.snapshot", peer=str(number), snapshot="s", size=2, checksum="a" * 64, shards=shards
    )


def manifest(**changes: Any) -> BackupManifest:
    values: dict[str, Any] = {
        "id": "20261124T030000Z",
        "fleet": "prod",
        "namespace": "shop",
        "name": "acme",
        "uid": "uid-1",
        "cell": "eu-1",
        "taken_at": "2026-11-24T03:10:00Z",
        "finished_at": "2026-11-24T03:10:02Z",
        "alias": "prod.shop.acme",
        "side": "prod.shop.acme@b",
        "collection": "prod.shop.acme@g1",
        "generation": 1,
        "points": 7,
        "points_after": 7,
        "shards": (0,),
        "parts": (part(0),),
    }
    return BackupManifest(**{**values, **changes})


@given(st.sets(st.integers(0, 9)), st.lists(st.sets(st.integers(0, 9)), max_size=4))
def test_it_is_whole_only_where_the_snapshots_hold_every_shard_and_no_other(
    shards: set[int], held: list[set[int]]
) -> None:
    parts = tuple(part(*sorted(each), number=number) for number, each in enumerate(held))
    whole = bool(held) and set().union(*held) == shards
    assert manifest(shards=tuple(shards), parts=parts).is_complete == whole


def test_one_that_is_about_to_be_removed_is_not_whole() -> None:
    assert not manifest(state="Removing").is_complete


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 60))
def test_the_count_is_exact_where_nobody_wrote(before: int, after: int, found: int) -> None:
    taken = manifest(points=before, points_after=after)
    assert taken.holds(found) == (min(before, after) <= found <= max(before, after))
    assert manifest(points=before, points_after=before).holds(found) == (found == before)


def test_it_belongs_to_who_it_names() -> None:
    taken = manifest()
    assert taken.is_of("prod", "shop", "acme")
    assert [taken.is_of(*who) for who in (("dev", "shop", "acme"), ("prod", "x", "acme"), ("prod", "shop", "b"))] == [
        False
    ] * 3


def test_where_it_lies_and_that_it_reads_as_it_was_written() -> None:
    prefix = tenant_prefix("s3://bucket/ops/", "prod", "shop", "acme")
    assert prefix == "s3://bucket/ops/backups/prod/shop/acme"
    assert index_uri(prefix) == f"{prefix}/index.json"
    assert manifest_uri(prefix, "20261124T030000Z") == f"{prefix}/20261124T030000Z/manifest.json"
    taken = manifest(metadata={"searchops.dev/uid": "uid-1"}, config={"params": {"on_disk_payload": True}})
    assert BackupManifest.model_validate_json(taken.model_dump_json(by_alias=True)) == taken


@pytest.mark.parametrize("wrong", ["", "..", "../other", "20261124", "20261124T030000Z/x"])
def test_an_id_never_leads_elsewhere(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no backup"):
        manifest_uri("s3://bucket/x", wrong)
