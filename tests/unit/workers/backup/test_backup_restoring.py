"""A proof counts exactly and leaves nothing; a restore overwrites nothing, and goes on where it stopped."""

from __future__ import annotations

from typing import Any

import fsspec
import httpx
import pytest

from searchops.api.backup import record_of
from searchops_workers.backup.errors import BackupError, BadBackup, NotOurs
from searchops_workers.backup.prove import prove
from searchops_workers.backup.restore import Order, newest, plan, restore
from searchops_workers.backup.take import take
from unit.workers.backup import fakes_cell as fake

NOW, ID = fake.NOW, "20261124T030000Z"
IDENTITY = {"searchops.dev/fleet": "prod", "searchops.dev/cell": "us-1", "searchops.dev/cluster": "c"}
ORDER = Order(ID, "us-1", IDENTITY, "uid-9", "ns-9")


@pytest.fixture
def cell(prefix: str) -> fake.FakeCell:
    """A cell of two nodes whose tenant has been backed up."""
    made = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    take(fake.backup_task(prefix), made.nodes(), fake.store_of(prefix), lambda: NOW)
    return made


def empty_cell() -> fake.FakeCell:
    return fake.FakeCell({0: {0}, 1: {1}}, snapshots={0: {}, 1: {}})


def proved(cell: fake.FakeCell, prefix: str) -> tuple[bool, str]:
    result = prove(fake.prove_task(prefix), cell.nodes(), fake.store_of(prefix), lambda: NOW)
    record = record_of(fake.store_of(prefix).index())
    assert record.proof is not None
    assert (record.proof.ok, record.proof.points, record.proof.message) == (result.ok, result.points, result.message)
    return result.ok, result.message


def test_a_proof_counts_what_came_back_and_drops_it(cell: fake.FakeCell, prefix: str) -> None:
    assert proved(cell, prefix) == (True, "")
    assert set(cell.collections) == {fake.COLLECTION}


def test_points_that_are_lost_are_a_verdict(cell: fake.FakeCell, prefix: str) -> None:
    cell.loses = 1
    assert proved(cell, prefix) == (False, "9 points came back, wanted 10: it is not what was backed up")
    assert set(cell.collections) == {fake.COLLECTION}


def test_a_file_that_was_changed_is_a_verdict(cell: fake.FakeCell, prefix: str) -> None:
    system, path = fsspec.core.url_to_fs(f"{prefix}/{ID}/node-0.snapshot")
    content = system.cat_file(path)
    system.pipe_file(path, content[:-1] + b"!")
    ok, message = proved(cell, prefix)
    assert not ok
    assert "its content is not what was backed up" in message
    system.pipe_file(path, content + b"!")
    assert "it was changed; take another backup" in proved(cell, prefix)[1]
    system.rm_file(path)
    assert "node-0.snapshot is gone" in proved(cell, prefix)[1]


def test_a_scratch_name_that_is_taken_is_not_touched(cell: fake.FakeCell, prefix: str) -> None:
    cell.collections[fake.SCRATCH] = fake.FakeCollection({0: [1]}, {"owner": "somebody"})
    with pytest.raises(NotOurs, match="not touched, remove it by hand"):
        proved(cell, prefix)
    assert cell.collections[fake.SCRATCH].shards == {0: [1]}
    cell.collections[fake.SCRATCH] = fake.FakeCollection({0: [1]}, {"searchops.dev/scratch": "prod/shop/acme"})
    cell.aliases["in-use"] = fake.SCRATCH
    with pytest.raises(NotOurs, match="it is in use"):
        proved(cell, prefix)
    assert fake.SCRATCH in cell.collections


def count_requests(prefix: str) -> int:
    made = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    take(fake.backup_task(prefix), made.nodes(), fake.store_of(prefix), lambda: NOW)
    before = len(made.requests)
    prove(fake.prove_task(prefix), made.nodes(), fake.store_of(prefix), lambda: NOW)
    return len(made.requests) - before


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(count_requests("memory://counted/proof")))
def test_a_proof_that_is_killed_anywhere_is_made_again_and_leaves_nothing(
    cell: fake.FakeCell, prefix: str, at: int, when: str
) -> None:
    start = len(cell.requests)
    struck: list[str] = []

    def strike(moment: str, method: str, path: str) -> None:
        if len(cell.requests) == start + at + 1 and moment == when and not struck:
            struck.append(path)
            raise fake.Killed

    cell.fault = strike
    with pytest.raises(fake.Killed):
        proved(cell, prefix)
    assert proved(cell, prefix) == (True, "")
    assert set(cell.collections) == {fake.COLLECTION}


def restored(cell: fake.FakeCell, prefix: str, order: Order = ORDER, said: list[str] | None = None) -> int:
    words = said if said is not None else []
    return restore(order, fake.store_of(prefix), cell.nodes(), words.append, lambda: NOW)


def test_a_tenant_comes_back_in_another_cell_for_its_new_owner(cell: fake.FakeCell, prefix: str) -> None:
    other = empty_cell()
    said: list[str] = []
    steps = plan(ORDER, fake.store_of(prefix).manifest(ID), other.nodes()[0])  # type: ignore[arg-type]
    assert not other.collections, "a plan changes nothing"
    assert restored(other, prefix, said=said) == 10
    assert tuple(said) == steps
    assert [step.split(" ")[0] for step in steps] == ["claim", "recover", "give", "point", "point"]
    found = other.collections[fake.COLLECTION]
    assert found.shards == cell.collections[fake.COLLECTION].shards
    assert found.metadata == {
        **fake.METADATA,
        "searchops.dev/uid": "uid-9",
        "searchops.dev/namespace-uid": "ns-9",
        "searchops.dev/restored": f"{ID} 2026-11-24T03:10:00Z",
    }
    assert other.aliases == {"prod.shop.acme": fake.COLLECTION, "prod.shop.acme@b": fake.COLLECTION}
    assert other.collections["searchops-cell"].metadata == IDENTITY
    assert restored(other, prefix) == 10, "the same again changes nothing"


def restore_requests() -> int:
    prefix, other = "memory://counted/restore", empty_cell()
    made = fake.FakeCell.with_tenant({0: {0}, 1: {1}})
    take(fake.backup_task(prefix), made.nodes(), fake.store_of(prefix), lambda: NOW)
    restored(other, prefix)
    return len(other.requests)


@pytest.mark.parametrize("kind", ["killed", "no answer"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", range(restore_requests()))
def test_a_restore_that_stops_anywhere_goes_on_or_says_what_is_in_the_way(
    cell: fake.FakeCell, prefix: str, at: int, when: str, kind: str
) -> None:
    other = empty_cell()
    struck: list[str] = []

    def strike(moment: str, method: str, path: str) -> None:
        if len(other.requests) == at + 1 and moment == when and not struck:
            struck.append(path)
            raise fake.Killed() if kind == "killed" else httpx.ReadTimeout("gone")

    other.fault = strike
    for _ in range(3):
        try:
            points = restored(other, prefix)
            break
        except (fake.Killed, BackupError) as error:
            if isinstance(error, BadBackup):
                # One of two parts is in: that it is only a part is seen, and nothing is published.
                assert struck[0].endswith("/snapshots/upload")
                assert "no alias was set" in str(error)
                assert other.aliases == {}
                return
    assert points == 10
    assert other.aliases == {"prod.shop.acme": fake.COLLECTION, "prod.shop.acme@b": fake.COLLECTION}
    assert other.collections[fake.COLLECTION].metadata["searchops.dev/uid"] == "uid-9"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"aliases": {"prod.shop.acme": "prod.shop.acme@g7"}}, "it is not moved: something lives there"),
        ({"aliases": {"prod.shop.acme@b": "x"}}, "it is not moved: something lives there"),
        ({"collections": {"prod.shop.acme": {}}}, "has the alias's name prod.shop.acme"),
        ({"collections": {fake.COLLECTION: {"searchops.dev/uid": "uid-5"}}}, "uid 'uid-5'; it is not overwritten"),
        ({"collections": {fake.COLLECTION: {**fake.METADATA, "searchops.dev/fleet": "dev"}}}, "it is not overwritten"),
        ({"collections": {"searchops-cell": {**IDENTITY, "searchops.dev/cell": "eu-9"}}}, "nothing is written there"),
    ],
)
def test_nothing_that_is_there_is_overwritten(
    cell: fake.FakeCell, prefix: str, change: dict[str, Any], why: str
) -> None:
    other = empty_cell()
    other.aliases = dict(change.get("aliases", {}))
    for name, metadata in change.get("collections", {}).items():
        other.collections[name] = fake.FakeCollection({0: [1]}, dict(metadata))
    before = repr((other.aliases, other.collections))
    with pytest.raises(NotOurs, match=why):
        restored(other, prefix)
    assert repr((other.aliases, other.collections)) == before


def test_one_that_lost_only_its_alias_gets_it_back_where_it_is_what_was_backed_up(
    cell: fake.FakeCell, prefix: str
) -> None:
    cell.aliases = {}
    assert restored(cell, prefix) == 10
    assert cell.aliases["prod.shop.acme"] == fake.COLLECTION
    cell.aliases = {}
    cell.collections[fake.COLLECTION].shards[0].append(1)
    with pytest.raises(BadBackup, match="has 11 points, the manifest says 10 to 10; no alias was set"):
        restored(cell, prefix)
    assert cell.aliases == {}


def test_which_backup_is_taken(cell: fake.FakeCell, prefix: str) -> None:
    store = fake.store_of(prefix)
    assert newest(store, None) == ID
    assert newest(store, "20261101T030000Z") == "20261101T030000Z"
    with pytest.raises(BadBackup, match="there is no backup 20261101T030000Z"):
        restored(empty_cell(), prefix, Order("20261101T030000Z", "us-1", IDENTITY, "uid-9", "ns-9"))
    with pytest.raises(BadBackup, match="names no whole backup"):
        newest(fake.store_of(f"{prefix}-other"), None)
    stranger = store.manifest(ID)
    assert stranger is not None
    store.write(ID, "manifest.json", stranger.model_copy(update={"name": "other"}))
    with pytest.raises(BadBackup, match="is of tenant prod/shop/other, wanted prod/shop/acme"):
        restored(empty_cell(), prefix)
