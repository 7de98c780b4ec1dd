"""The double as a process: what survives a SIGKILL, injected faults, releases, refusals, snapshots between cells."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import httpx
import pytest
import pytest_asyncio
from qdrant_client import grpc as api

from searchops_sandbox.qdrant.cell import QdrantCell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

KEY = "process-test-key-of-32-characters!!"
ALT = "alternative-key-of-32-characters!!!"
NAME = "fleet.shop.one@g1"
# pytest-asyncio asks for "the current loop" before the first async test: Python would open one that nobody closes.
asyncio.set_event_loop(None)

BODY = {
    "vectors": {"d-old": {"size": 2, "distance": "Dot"}},
    "sparse_vectors": {"lex": {"modifier": "idf"}},
    "metadata": {"searchops.dev/uid": "u1"},
    "strict_mode_config": {"enabled": True, "max_query_limit": 50},
}


@pytest.fixture(autouse=True, scope="module")
def no_real_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("QDRANT_BIN", raising=False)
        yield


@pytest.fixture
async def cell(tmp_path: Path) -> AsyncIterator[QdrantCell]:
    made = QdrantCell("one", folder=tmp_path / "one", api_key=KEY, alt_api_key=ALT)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    """One process for the tests that leave nothing behind."""
    made = QdrantCell("shared", folder=tmp_path_factory.mktemp("shared"), api_key=KEY, alt_api_key=ALT)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def empty(shared: QdrantCell) -> AsyncIterator[QdrantCell]:
    """The shared process without collections, aliases and faults."""
    yield shared
    await shared.clear_faults()
    async with Client(shared) as client:
        for entry in (await client.ok("GET", "/collections"))["collections"]:
            await client.ok("DELETE", f"/collections/{entry['name']}")


class Client:
    """REST with the cell's key, on a connection pool of its own."""

    def __init__(self, cell: QdrantCell, key: str = KEY) -> None:
        self._client = httpx.AsyncClient(base_url=cell.rest_url, headers={"api-key": key}, timeout=30.0)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def raw(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self._client.request(method, path, json=body)

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        response = await self.raw(method, path, body)
        assert response.status_code == 200, response.text
        return response.json()["result"]

    async def status(self, method: str, path: str, body: Any = None) -> int:
        return (await self.raw(method, path, body)).status_code

    async def fill(self, count: int, first: int = 1) -> None:
        points = [{"id": i, "vector": {"d-old": [1.0, i]}, "payload": {"n": i}} for i in range(first, first + count)]
        await self.ok("PUT", f"/collections/{NAME}/points?wait=true", {"points": points})

    async def ids(self, only: Any = None) -> list[int]:
        body = {"limit": 50, "filter": only}
        page = await self.ok("POST", f"/collections/{NAME}/points/scroll", body)
        return [point["id"] for point in page["points"]]


async def test_everything_acknowledged_survives_a_sigkill(cell: QdrantCell) -> None:
    async with Client(cell) as client:
        await client.ok("PUT", f"/collections/{NAME}", BODY)
        await client.fill(5)
        alias = {"create_alias": {"collection_name": NAME, "alias_name": "fleet.shop.one"}}
        await client.ok("POST", "/collections/aliases", {"actions": [alias]})
        await client.ok("PUT", f"/collections/{NAME}/index?wait=true", {"field_name": "n", "field_schema": "integer"})
        new = {"dense": {"size": 3, "distance": "Cosine"}}
        await client.ok("PUT", f"/collections/{NAME}/vectors/d-new?wait=true", new)
        vectors = [{"id": i, "vector": {"d-new": [1, 0, 0]}} for i in (1, 2)]
        await client.ok("PUT", f"/collections/{NAME}/points/vectors?wait=true", {"points": vectors})
        await client.ok("PATCH", f"/collections/{NAME}", {"metadata": {"searchops.dev/generation": 2}})
        wrong = {"points": [{"id": 1, "vector": {"d-new": [1, 0, 0]}}, {"id": 77, "vector": {"d-new": [1, 0, 0]}}]}
        assert await client.status("PUT", f"/collections/{NAME}/points/vectors?wait=true", wrong) == 404
        await client.ok("POST", f"/collections/{NAME}/points/delete?wait=true", {"points": [5]})
        before = await client.ok("GET", f"/collections/{NAME}")
    await cell.kill()
    await cell.start()
    async with Client(cell) as client:
        assert await client.ok("GET", "/collections/fleet.shop.one") == before
        assert before["points_count"] == 4
        assert await client.ids({"must_not": [{"has_vector": "d-new"}]}) == [3, 4]
        await client.fill(1, first=9)
        assert await client.ids() == [1, 2, 3, 4, 9]


async def test_shard_keys_and_their_points_survive_a_sigkill_and_what_was_dropped_does_not(tmp_path: Path) -> None:
    cell = QdrantCell("clustered", folder=tmp_path, api_key=KEY, cluster=True)
    await cell.start()
    keys = f"/collections/{NAME}/shards"
    try:
        async with Client(cell) as client:
            await client.ok("PUT", f"/collections/{NAME}", {**BODY, "sharding_method": "custom"})
            for key, points in (("a", 2), ("b", 3), ("c", 4)):
                await client.ok("PUT", keys, {"shard_key": key})
                rows = [{"id": i, "vector": {"d-old": [1.0, i]}} for i in range(points)]
                await client.ok("PUT", f"/collections/{NAME}/points?wait=true", {"points": rows, "shard_key": key})
            await client.ok("POST", f"{keys}/delete", {"shard_key": "a"})
            made = await client.ok("POST", f"/collections/{NAME}/snapshots")
        await cell.kill()
        await cell.start()
        async with Client(cell) as client:
            location = f"{cell.rest_url}/collections/{NAME}/snapshots/{made['name']}"
            restore = {"location": location, "api_key": KEY}
            await client.ok("PUT", "/collections/restored/snapshots/recover", restore)
            for name in (NAME, "restored"):
                listed = await client.ok("GET", f"/collections/{name}/shards")
                assert listed == {"shard_keys": [{"key": "b"}, {"key": "c"}]}
                counts = [
                    await client.ok("POST", f"/collections/{name}/points/count", {"shard_key": key}) for key in "bc"
                ]
                assert counts == [{"count": 3}, {"count": 4}]
            await client.ok("PUT", keys, {"shard_key": "a"})
            assert await client.ok("POST", f"/collections/{NAME}/points/count", {"shard_key": "a"}) == {"count": 0}
    finally:
        await cell.stop()


async def test_a_dropped_collection_stays_dropped_and_its_name_is_free(cell: QdrantCell) -> None:
    async with Client(cell) as client:
        await client.ok("PUT", f"/collections/{NAME}", BODY)
        await client.fill(3)
        assert await client.ok("DELETE", f"/collections/{NAME}") is True
        await client.ok("PUT", f"/collections/{NAME}", BODY)
        assert await client.ids() == []
    await cell.kill()
    await cell.start()
    async with Client(cell) as client:
        assert await client.ids() == []


async def test_engine_settings_are_patched_by_reopening(empty: QdrantCell) -> None:
    async with Client(empty) as client:
        await client.ok("PUT", f"/collections/{NAME}", BODY)
        await client.fill(3)
        change = {"hnsw_config": {"m": 0, "payload_m": 16}, "optimizers_config": {"indexing_threshold": 77}}
        await client.ok("PATCH", f"/collections/{NAME}", change)
        config = (await client.ok("GET", f"/collections/{NAME}"))["config"]
        assert (config["hnsw_config"]["m"], config["hnsw_config"]["payload_m"]) == (0, 16)
        assert config["optimizer_config"]["indexing_threshold"] == 77
        assert await client.ids() == [1, 2, 3]


async def test_it_says_that_it_is_a_double(empty: QdrantCell) -> None:
    async with Client(empty) as client:
        said = (await client.raw("GET", "/")).json()
    assert said["version"] == "1.18.3-double"
    assert "double" in said["title"]
    assert KEY not in repr(empty)


async def test_both_keys_are_accepted(empty: QdrantCell) -> None:
    async with Client(empty, ALT) as client:
        assert await client.ok("GET", "/collections") == {"collections": []}
    async with Client(empty, "another") as client:
        assert await client.status("GET", "/collections") == 401


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/quotas", None),
        ("PUT", "/collections/two", BODY | {"shard_number": 2}),
        ("PUT", "/collections/two", BODY | {"quantization_config": {"scalar": {"type": "int8"}}}),
        ("PUT", "/collections/two", {"vectors": {"d": {"size": 2, "distance": "Dot", "memory": "cold"}}}),
        (
            "PUT",
            "/collections/two",
            {"vectors": {"d": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}}},
        ),
        ("PUT", "/collections/two", BODY | {"optimizers_config": {"prevent_unoptimized": True}}),
        ("PATCH", f"/collections/{NAME}", {"vectors": {"d-old": {"on_disk": True}}}),
        ("PATCH", f"/collections/{NAME}", {"params": {"read_fan_out_factor": 2}}),
        ("POST", f"/collections/{NAME}/points/query", {"query": {"recommend": {"positive": [1]}}, "using": "d-old"}),
        (
            "POST",
            f"/collections/{NAME}/points/query",
            {"query": [1, 0], "using": "d-old", "lookup_from": {"collection": "x"}},
        ),
        ("POST", f"/collections/{NAME}/points/query/groups", {"query": [1, 0], "using": "d-old", "group_by": "n"}),
        ("POST", f"/collections/{NAME}/points/search/matrix/pairs", {}),
        ("POST", f"/collections/{NAME}/snapshots?wait=false", None),
        ("POST", "/snapshots", None),
    ],
)
async def test_what_it_does_not_do_is_501(empty: QdrantCell, method: str, path: str, body: Any) -> None:
    async with Client(empty) as client:
        await client.ok("PUT", f"/collections/{NAME}", BODY)
        await client.fill(1)
        response = await client.raw(method, path, body)
        assert response.status_code == 501, response.text
        assert "double" in response.json()["status"]["error"]
        names = await client.ok("GET", "/collections")
        assert names == {"collections": [{"name": NAME}]}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"vectors": {"d": {"size": 70_000, "distance": "Dot"}}}, 400),
        ({"vectors": {"d": {"size": 2, "distance": "Dot"}}, "surprise": 1}, 400),
        ({"vectors": {}, "shard_number": 0}, 422),
        ({"vectors": {}, "strict_mode_config": {"enabled": True, "read_rate_limit": 0}}, 422),
        ([], 400),
    ],
)
async def test_bad_definitions_leave_nothing_behind(empty: QdrantCell, body: Any, status: int) -> None:
    async with Client(empty) as client:
        assert await client.status("PUT", "/collections/two", body) == status
        assert await client.ok("GET", "/collections") == {"collections": []}
        await client.ok("PUT", "/collections/two", BODY)


class TestFaults:
    async def test_status_and_count(self, empty: QdrantCell) -> None:
        await empty.inject({"method": "GET", "path": "/collections", "status": 507, "count": 2})
        await empty.inject({"path": "/aliases", "status": 429, "retry_after": 7})
        async with Client(empty) as client:
            assert [await client.status("GET", "/collections") for _ in range(3)] == [507, 507, 200]
            limited = await client.raw("GET", "/aliases")
            assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")

    @pytest.mark.parametrize(("drop", "created"), [("before-effect", False), ("after-effect", True)])
    async def test_a_cut_connection_tells_nothing_about_the_effect(
        self, empty: QdrantCell, drop: str, created: bool
    ) -> None:
        await empty.inject({"method": "PUT", "path": "/collections/[^/]+", "drop": drop})
        async with Client(empty) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.raw("PUT", f"/collections/{NAME}", BODY)
            assert await client.ok("GET", f"/collections/{NAME}/exists") == {"exists": created}

    async def test_latency_holds_one_request_and_no_other(self, cell: QdrantCell) -> None:
        await cell.inject({"path": "/collections", "latency": 600})
        async with Client(cell) as client:
            slow = asyncio.create_task(client.raw("GET", "/collections"))
            assert await client.ok("GET", "/aliases") == {"aliases": []}
            assert not slow.done()
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow

    async def test_they_can_be_cleared_and_need_the_key(self, empty: QdrantCell) -> None:
        await empty.inject({"path": "/.*", "status": 503, "count": None})
        async with Client(empty) as client, Client(empty, "another") as stranger:
            assert await client.status("GET", "/collections") == 503
            assert await stranger.status("DELETE", "/__sandbox/faults") == 401
            assert len(await client.ok("GET", "/__sandbox/faults")) == 1
            await empty.clear_faults()
            assert await client.status("GET", "/collections") == 200
            assert await client.status("POST", "/__sandbox/faults", {"path": "(", "status": 503}) == 400

    @pytest.mark.parametrize(("drop", "points"), [("before-effect", 0), ("after-effect", 1)])
    async def test_over_grpc(self, empty: QdrantCell, drop: str, points: int) -> None:
        async with Client(empty) as client:
            await client.ok("PUT", f"/collections/{NAME}", BODY)
            await empty.inject({"method": "GRPC", "path": "/qdrant.Points/Upsert", "drop": drop})
            async with grpc.aio.insecure_channel(f"127.0.0.1:{empty.grpc_port}") as channel:
                stub: Any = api.PointsStub(channel)  # type: ignore[no-untyped-call]
                point = api.PointStruct(
                    id=api.PointId(num=1), vectors=api.Vectors(vectors=api.NamedVectors(vectors={}))
                )
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await stub.Upsert(
                        api.UpsertPoints(collection_name=NAME, points=[point], wait=True), metadata=(("api-key", KEY),)
                    )
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
            assert len(await client.ids()) == points

    async def test_a_real_server_takes_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QDRANT_BIN", "/usr/bin/qdrant")
        with pytest.raises(RuntimeError, match="real server"):
            await QdrantCell("real", folder=tmp_path, api_key=KEY).inject({"path": "/.*"})


async def test_slices_of_1_19_are_disjoint_and_complete(tmp_path: Path) -> None:
    cell = QdrantCell("newer", folder=tmp_path, api_key=KEY, release="1.19.0")
    await cell.start()
    try:
        async with Client(cell) as client:
            await client.ok("PUT", f"/collections/{NAME}", BODY)
            await client.fill(40)
            slices = [await client.ids({"must": [{"slice": {"index": i, "total": 3}}]}) for i in range(3)]
            assert sorted(ident for part in slices for ident in part) == list(range(1, 41))
            assert all(slices)
    finally:
        await cell.stop()


async def test_the_servers_own_cap(tmp_path: Path) -> None:
    cell = QdrantCell("small", folder=tmp_path, api_key=KEY, max_collections=1)
    await cell.start()
    try:
        async with Client(cell) as client:
            await client.ok("PUT", f"/collections/{NAME}", BODY)
            assert await client.status("PUT", "/collections/two", BODY) == 400
    finally:
        await cell.stop()


async def test_a_snapshot_restores_in_another_cell(empty: QdrantCell, tmp_path: Path) -> None:
    other = QdrantCell("two", folder=tmp_path / "two", api_key=ALT)
    await other.start()
    try:
        async with Client(empty) as source, Client(other, ALT) as target:
            await source.ok("PUT", f"/collections/{NAME}", BODY)
            await source.fill(4)
            await source.ok(
                "PUT", f"/collections/{NAME}/index?wait=true", {"field_name": "n", "field_schema": "integer"}
            )
            made = await source.ok("POST", f"/collections/{NAME}/snapshots")
            await source.fill(1, first=50)
            location = f"{empty.rest_url}/collections/{NAME}/snapshots/{made['name']}"
            recover = f"/collections/{NAME}/snapshots/recover"
            assert await target.status("PUT", recover, {"location": location}) == 400
            order = {"location": location, "api_key": KEY, "checksum": made["checksum"]}
            await target.ok("PUT", recover, order)
            assert await target.ids() == [1, 2, 3, 4]
            restored = await target.ok("GET", f"/collections/{NAME}")
            assert restored["config"]["metadata"] == BODY["metadata"]
            assert restored["payload_schema"] == {"n": {"data_type": "integer", "points": 4}}
            assert await target.ok("GET", "/aliases") == {"aliases": []}
            await target.fill(1, first=60)
            assert await source.ids() == [1, 2, 3, 4, 50]
    finally:
        await other.stop()
