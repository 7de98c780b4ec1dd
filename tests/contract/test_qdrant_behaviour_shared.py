"""What collections of many tenants rely on: shard keys, a tenant's key in payloads, records in metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from qdrant_client import models

from searchops_sandbox.qdrant.contract import Connected, servers_in_cluster_mode

if TYPE_CHECKING:
    from searchops_sandbox.qdrant.contract import Rest

pytestmark = pytest.mark.parametrize("server", servers_in_cluster_mode(), indirect=True, scope="module")
CUSTOM = {"sharding_method": "custom", "shard_number": 1}
TENANT = {"field_name": "_tenant", "field_schema": {"type": "keyword", "is_tenant": True}}


def of(tenant: str) -> dict[str, Any]:
    return {"must": [{"key": "_tenant", "match": {"value": tenant}}]}


def put(rest: Rest, name: str, ids: Any, key: Any, **payload: Any) -> None:
    points = [{"id": i, "vector": {"d-old": [1.0, i, 0.5, 0.25]}, "payload": {"n": i, **payload}} for i in ids]
    body = {"points": points} if key is None else {"points": points, "shard_key": key}
    rest.ok("PUT", f"/collections/{name}/points?wait=true", body)


def count(rest: Rest, name: str, key: Any = None, only: Any = None) -> int:
    body = {"exact": True, "filter": only, "shard_key": key}
    return int(rest.ok("POST", f"/collections/{name}/points/count", body)["count"])


def scrolled(rest: Rest, name: str, key: Any = None, only: Any = None) -> list[dict[str, Any]]:
    """Every point, three a page."""
    found, offset = [], None
    while True:
        body = {"limit": 3, "offset": offset, "filter": only, "shard_key": key}
        page = rest.ok("POST", f"/collections/{name}/points/scroll", body)
        found += page["points"]
        offset = page["next_page_offset"]
        if offset is None:
            return found


def nearest(rest: Rest, name: str, key: Any = None, **more: Any) -> list[dict[str, Any]]:
    body = {"query": [1, 0, 0, 0], "using": "d-old", "limit": 10, "shard_key": key, **more}
    points: list[dict[str, Any]] = rest.ok("POST", f"/collections/{name}/points/query", body)["points"]
    return points


@pytest.fixture
def two(rest: Rest) -> str:
    """A collection with the keys `a` and `b`; both have the points 1 to 4, `b` has 5 too."""
    name = rest.collection(**CUSTOM)
    for key in ("a", "b"):
        rest.ok("PUT", f"/collections/{name}/shards", {"shard_key": key})
    put(rest, name, range(1, 5), "a", of="a")
    put(rest, name, range(1, 6), "b", of="b")
    return name


class TestShardKeys:
    def test_equal_ids_under_two_keys_are_two_points(self, rest: Rest, two: str) -> None:
        assert (count(rest, two, "a"), count(rest, two, "b"), count(rest, two)) == (4, 5, 9)
        for key, ids in (("a", [1, 2, 3, 4]), ("b", [1, 2, 3, 4, 5])):
            found = scrolled(rest, two, key)
            assert [(p["id"], p["payload"]["of"], p["shard_key"]) for p in found] == [(i, key, key) for i in ids]
            body = {"ids": [1, 5], "with_payload": True, "shard_key": key}
            read = rest.ok("POST", f"/collections/{two}/points", body)
            assert {p["id"]: (p["payload"]["of"], p["shard_key"]) for p in read} == {
                i: (key, key) for i in ids if i in (1, 5)
            }
            assert {hit["shard_key"] for hit in nearest(rest, two, key)} == {key}
            assert {hit["id"] for hit in nearest(rest, two, key)} == set(ids)

    def test_reads_without_a_key_see_all_and_each_id_once(self, rest: Rest, two: str) -> None:
        assert [p["id"] for p in scrolled(rest, two)] == [1, 2, 3, 4, 5]
        assert sorted(hit["id"] for hit in nearest(rest, two)) == [1, 2, 3, 4, 5]
        assert len(rest.ok("POST", f"/collections/{two}/points", {"ids": [1, 5]})) == 2

    def test_reads_of_several_keys_are_in_order(self, rest: Rest, two: str) -> None:
        rest.ok("PUT", f"/collections/{two}/shards", {"shard_key": "c"})
        put(rest, two, (7, 9), "c", of="c")
        both = nearest(rest, two, ["a", "c"], limit=3, offset=1)
        assert [hit["id"] for hit in both] == [2, 3, 4]
        assert [hit["score"] for hit in both] == sorted((hit["score"] for hit in both), reverse=True)
        assert [p["id"] for p in scrolled(rest, two, ["c", "a"])] == [1, 2, 3, 4, 7, 9]
        assert count(rest, two, ["a", "c"]) == 6

    def test_a_write_goes_to_its_key_only(self, rest: Rest, two: str) -> None:
        path = f"/collections/{two}/points"
        rest.ok("POST", f"{path}/payload?wait=true", {"payload": {"seen": 1}, "points": [1], "shard_key": "a"})
        seen = {"must": [{"key": "seen", "match": {"value": 1}}]}
        assert (count(rest, two, "a", seen), count(rest, two, "b", seen)) == (1, 0)
        vectors = [{"id": 2, "vector": {"d-old": [0, 0, 0, 1]}}]
        rest.ok("PUT", f"{path}/vectors?wait=true", {"points": vectors, "shard_key": "a"})
        assert [p["id"] for p in nearest(rest, two, "a", query=[0, 0, 0, 1], limit=1)] == [2]
        assert nearest(rest, two, "b", query=[0, 0, 0, 1])[0]["score"] < 0.5
        every = {"filter": {"must": [{"has_id": [1, 2, 3]}]}, "shard_key": "a"}
        rest.ok("POST", f"{path}/delete?wait=true", every)
        assert (count(rest, two, "a"), count(rest, two, "b")) == (1, 5)

    @pytest.mark.parametrize("key", [None, "z", ["a", "z"]])
    def test_a_write_without_a_key_or_to_an_unknown_one_is_refused(self, rest: Rest, two: str, key: Any) -> None:
        selector = {} if key is None else {"shard_key": key}
        path = f"/collections/{two}/points"
        point = {"id": 1, "vector": {"d-old": [1, 0, 0, 0]}}
        writes: list[tuple[str, str, dict[str, Any]]] = [
            ("PUT", path, {"points": [point]}),
            ("PUT", f"{path}/vectors", {"points": [point]}),
            ("POST", f"{path}/delete", {"points": [1]}),
            ("POST", f"{path}/payload", {"payload": {"x": 1}, "points": [1]}),
            ("POST", f"{path}/vectors/delete", {"vector": ["d-old"], "points": [1]}),
        ]
        for method, target, body in writes:
            rest.refused(400, method, f"{target}?wait=true", {**body, **selector})
        assert (count(rest, two, "b"), count(rest, two, "a")) == (5, 4)

    def test_a_read_of_an_unknown_key_is_refused(self, rest: Rest, two: str) -> None:
        neither = {"target": "y", "fallback": "z"}
        refusals = [
            rest.refused(400, "POST", f"/collections/{two}/points/scroll", {"shard_key": "z"}),
            rest.refused(400, "POST", f"/collections/{two}/points/count", {"shard_key": ["a", "z"]}),
            rest.refused(404, "POST", f"/collections/{two}/points/count", {"shard_key": neither}),
        ]
        said = [refusal.json()["status"]["error"] for refusal in refusals]
        assert [('"z"' in one, "not found" in one) for one in said] == [(True, True)] * 3, said
        assert not any(refusal.json().get("result") for refusal in refusals), "nothing of the keys that are there"

    def test_a_target_is_served_from_the_fallback_until_it_is_ready(self, rest: Rest, two: str) -> None:
        partial = {"shard_key": "p", "initial_state": "Partial", "replication_factor": 1, "shards_number": 1}
        rest.ok("PUT", f"/collections/{two}/shards", partial)
        for target, expected in (("none", 4), ("p", 4), ("b", 5)):
            assert count(rest, two, {"target": target, "fallback": "a"}) == expected
        body = {
            "points": [{"id": 8, "vector": {"d-old": [1, 0, 0, 0]}}],
            "shard_key": {"target": "none", "fallback": "a"},
        }
        rest.ok("PUT", f"/collections/{two}/points?wait=true", body)
        assert count(rest, two, "a") == 5

    def test_dropping_a_key_drops_its_points_and_no_others(self, rest: Rest, two: str) -> None:
        rest.ok("POST", f"/collections/{two}/shards/delete", {"shard_key": "a"})
        assert rest.ok("GET", f"/collections/{two}/shards") == {"shard_keys": [{"key": "b"}]}
        assert (count(rest, two), count(rest, two, "b")) == (5, 5)
        rest.refused(400, "POST", f"/collections/{two}/shards/delete", {"shard_key": "a"})
        rest.ok("PUT", f"/collections/{two}/shards", {"shard_key": "a"})
        assert count(rest, two, "a") == 0

    def test_a_number_and_a_text_are_two_keys(self, rest: Rest) -> None:
        name = rest.collection(**CUSTOM)
        for key in (1, "1"):
            rest.ok("PUT", f"/collections/{name}/shards", {"shard_key": key})
        put(rest, name, range(2), "1")
        assert (count(rest, name, 1), count(rest, name, "1")) == (0, 2)
        rest.refused(400, "PUT", f"/collections/{name}/shards", {"shard_key": 1})

    def test_a_new_key_has_the_indexes_and_vectors_that_came_before_it(self, rest: Rest) -> None:
        name = rest.collection(**CUSTOM, strict_mode_config={"enabled": True, "unindexed_filtering_retrieve": False})
        rest.ok("PUT", f"/collections/{name}/index?wait=true", TENANT)
        rest.ok("PUT", f"/collections/{name}/shards", {"shard_key": "a"})
        rest.ok("PUT", f"/collections/{name}/vectors/d-new?wait=true", {"dense": {"size": 2, "distance": "Dot"}})
        rest.ok("PUT", f"/collections/{name}/index?wait=true", {"field_name": "n", "field_schema": "integer"})
        rest.ok("PUT", f"/collections/{name}/shards", {"shard_key": "b"})
        point = {"id": 1, "vector": {"d-new": [1, 1]}, "payload": {"_tenant": "t", "n": 1}}
        for key in ("a", "b"):
            rest.ok("PUT", f"/collections/{name}/points?wait=true", {"points": [point], "shard_key": key})
            only = {"must": [*of("t")["must"], {"key": "n", "match": {"value": 1}}]}
            assert [hit["id"] for hit in nearest(rest, name, key, query=[1, 1], using="d-new", filter=only)] == [1]
        schema = rest.ok("GET", f"/collections/{name}")["payload_schema"]
        assert {field: entry["points"] for field, entry in schema.items()} == {"_tenant": 2, "n": 2}

    def test_a_collection_without_custom_sharding_has_no_keys(self, rest: Rest) -> None:
        name = rest.collection()
        rest.refused(400, "PUT", f"/collections/{name}/shards", {"shard_key": "a"})
        rest.refused(400, "POST", f"/collections/{name}/points/count", {"shard_key": "a"})
        assert rest.ok("GET", f"/collections/{name}/shards") == {"shard_keys": []}

    @pytest.mark.parametrize("access", ["prw", "rw", "r"])
    def test_keys_are_made_with_global_rights_only(self, rest: Rest, two: str, access: str) -> None:
        limited = rest.with_token(access=[{"collection": two, "access": access}])
        limited.refused(403, "PUT", f"/collections/{two}/shards", {"shard_key": "c"})
        limited.refused(403, "POST", f"/collections/{two}/shards/delete", {"shard_key": "a"})
        assert count(limited, two, "b") == 5
        limited.close()
        reader = rest.with_token(access="r")
        reader.refused(403, "PUT", f"/collections/{two}/shards", {"shard_key": "c"})
        reader.close()
        assert rest.ok("GET", f"/collections/{two}/shards") == {"shard_keys": [{"key": "a"}, {"key": "b"}]}

    def test_rates_are_of_a_key(self, rest: Rest) -> None:
        name = rest.collection(**CUSTOM, strict_mode_config={"enabled": True, "read_rate_limit": 2})
        for key in ("a", "b"):
            rest.ok("PUT", f"/collections/{name}/shards", {"shard_key": key})
        asked = {key: {"exact": True, "shard_key": key} for key in ("a", "b")}
        path = f"/collections/{name}/points/count"
        assert [rest.raw("POST", path, asked["a"]).status_code for _ in range(3)] == [200, 200, 429]
        assert [rest.raw("POST", path, asked["b"]).status_code for _ in range(2)] == [200, 200]

    def test_the_clients_own_call_makes_and_drops_a_key(self, rest: Rest, two: str) -> None:
        make = models.CreateShardingKeyOperation(create_sharding_key=models.CreateShardingKey(shard_key="c"))
        drop = models.DropShardingKeyOperation(drop_sharding_key=models.DropShardingKey(shard_key="a"))
        for operation in (make, drop):
            rest.ok("POST", f"/collections/{two}/cluster", operation.model_dump(mode="json", exclude_none=True))
        listed = rest.ok("GET", f"/collections/{two}/shards")["shard_keys"]
        assert sorted(key["key"] for key in listed) == ["b", "c"]


async def test_shard_keys_over_grpc(rest: Rest, two: str) -> None:
    lex = models.SparseVector(indices=[1], values=[1.0])
    async with Connected(rest.server, rest.server.api_key) as client:
        point = models.PointStruct(id=9, vector={"d-old": [1.0, 0.0, 0.0, 0.0], "lex": lex}, payload={"of": "c"})
        await client.upsert(two, [point], wait=True, shard_key_selector="a")
        vectors = [models.PointVectors(id=1, vector={"d-old": [0.0, 0.0, 0.0, 1.0]})]
        await client.update_vectors(two, vectors, shard_key_selector="a")
        await client.set_payload(two, {"seen": True}, points=[2], shard_key_selector="a")
        await client.delete(two, models.PointIdsList(points=[3]), wait=True, shard_key_selector="a")
        assert [(await client.count(two, shard_key_selector=key)).count for key in ("a", "b")] == [4, 5]
        page, _ = await client.scroll(two, shard_key_selector="a")
        assert [(record.id, record.shard_key) for record in page] == [(i, "a") for i in (1, 2, 4, 9)]
        (read,) = await client.retrieve(two, [2], shard_key_selector="a")
        assert read.payload == {"n": 2, "of": "a", "seen": True}
        (untouched,) = await client.retrieve(two, [2], shard_key_selector="b")
        assert untouched.payload == {"n": 2, "of": "b"}
        legs = [models.Prefetch(query=q, using=u) for q, u in (([1.0, 0.0, 0.0, 0.0], "d-old"), (lex, "lex"))]
        rrf = models.FusionQuery(fusion=models.Fusion.RRF)
        fused = await client.query_points(two, prefetch=legs, query=rrf, limit=9, shard_key_selector="a")
        assert fused.points[0].id == 9
        assert {hit.shard_key for hit in fused.points} == {"a"}
        request = models.QueryRequest(prefetch=legs, query=rrf, shard_key="b", limit=9)
        (other,) = await client.query_batch_points(two, [request])
        assert {hit.id for hit in other.points} == {1, 2, 3, 4, 5}
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await client.upsert(two, [point], wait=True)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class TestSharedCollection:
    """Many tenants told apart by a payload key."""

    @pytest.fixture
    def shared(self, rest: Rest) -> str:
        hnsw = {"m": 0, "payload_m": 16}
        name = rest.collection(hnsw_config=hnsw, metadata={"searchops.dev/shared": "Shared"})
        rest.ok("PUT", f"/collections/{name}/index?wait=true", TENANT)
        for start, tenant in ((10, "a"), (20, "b")):
            put(rest, name, range(start, start + 4), None, _tenant=tenant)
        return name

    def test_its_settings_are_shown_as_they_were_given(self, rest: Rest, shared: str) -> None:
        config = rest.ok("GET", f"/collections/{shared}")["config"]
        assert (config["hnsw_config"]["m"], config["hnsw_config"]["payload_m"]) == (0, 16)
        entry = rest.ok("GET", f"/collections/{shared}")["payload_schema"]["_tenant"]
        assert entry["data_type"] == "keyword"
        assert entry["params"] == {"type": "keyword", "is_tenant": True}
        assert entry["points"] == 8
        told = rest.ok("GET", "/telemetry?details_level=2")["collections"]["collections"]
        (mine,) = [c["config"] for c in told if c["id"] == shared]
        assert (mine["hnsw_config"]["m"], mine["hnsw_config"]["payload_m"]) == (0, 16)
        assert mine["metadata"] == {"searchops.dev/shared": "Shared"}

    def test_a_filter_reads_one_tenants_points(self, rest: Rest, shared: str) -> None:
        assert count(rest, shared, only=of("a")) == 4
        assert [p["id"] for p in scrolled(rest, shared, only=of("b"))] == [20, 21, 22, 23]
        assert {hit["id"] for hit in nearest(rest, shared, filter=of("a"))} == {10, 11, 12, 13}

    @pytest.mark.parametrize(
        ("path", "body", "left"),
        [
            ("delete", {}, (0, 4)),
            ("vectors/delete", {"vector": ["d-old"]}, (4, 4)),
            ("payload", {"payload": {"seen": True}}, (4, 4)),
        ],
    )
    def test_a_write_by_filter_is_of_one_tenant(
        self, rest: Rest, shared: str, path: str, body: dict[str, Any], left: tuple[int, int]
    ) -> None:
        rest.ok("POST", f"/collections/{shared}/points/{path}?wait=true", {**body, "filter": of("a")})
        assert (count(rest, shared, only=of("a")), count(rest, shared, only=of("b"))) == left
        having = [{"must": [*of(tenant)["must"], {"has_vector": "d-old"}]} for tenant in "ab"]
        vectors = 4 if path == "payload" else 0
        assert [count(rest, shared, only=only) for only in having] == [vectors, 4]
        seen = [{"must": [*of(tenant)["must"], {"key": "seen", "match": {"value": True}}]} for tenant in "ab"]
        assert [count(rest, shared, only=only) for only in seen] == [4 if path == "payload" else 0, 0]

    def test_a_guarded_write_with_anothers_id_changes_nothing_of_it(self, rest: Rest, shared: str) -> None:
        point = {"id": 20, "vector": {"d-old": [0, 0, 0, 1]}, "payload": {"_tenant": "a"}}
        path = f"/collections/{shared}/points"
        rest.ok("PUT", f"{path}?wait=true", {"points": [point], "update_filter": of("a")})
        rest.ok("PUT", f"{path}?wait=true", {"points": [point], "update_mode": "insert_only"})
        vectors = {"points": [{"id": 20, "vector": {"d-old": [0, 0, 0, 1]}}], "update_filter": of("a")}
        rest.ok("PUT", f"{path}/vectors?wait=true", vectors)
        assert rest.payloads(shared, [20]) == {20: {"n": 20, "_tenant": "b"}}
        assert nearest(rest, shared, query=[0, 0, 0, 1], limit=1)[0]["score"] < 0.5

    def test_records_of_some_hundred_tenants(self, rest: Rest, shared: str) -> None:
        record = '{"tier":"Shared","alias":"shop","slices":{"1":{"key":"' + "k" * 600 + '"}}}'
        path = f"/collections/{shared}"
        keys = [f"searchops.dev/t.{number:032x}" for number in range(300)]
        for start in range(0, 300, 100):
            rest.ok("PATCH", path, {"metadata": {key: record for key in keys[start : start + 100]}})
        rest.ok("PATCH", path, {"metadata": {keys[0]: None, keys[1]: "changed"}})
        found = rest.ok("GET", path)["config"]["metadata"]
        expected = {key: record for key in keys[2:]}
        assert found == {"searchops.dev/shared": "Shared", keys[1]: "changed", **expected}
