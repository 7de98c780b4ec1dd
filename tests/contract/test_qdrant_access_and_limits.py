"""What the product relies on of tokens and limits, as effects on requests."""

from __future__ import annotations

import time

import jwt

from searchops_sandbox.qdrant.contract import Rest


class TestTokens:
    def test_a_token_on_the_alias_survives_the_switch(self, rest: Rest) -> None:
        old, new = rest.collection(), rest.collection()
        rest.fill(old, range(2))
        alias = rest.alias(old)
        reader = rest.with_token(access=[{"collection": alias, "access": "r"}])
        assert reader.count(alias) == 2
        rest.point_alias(alias, new)
        assert reader.count(alias) == 0
        for physical in (old, new):
            reader.refused(403, "POST", f"/collections/{physical}/points/count", {"exact": True})
        reader.close()

    def test_points_writers_cannot_define(self, rest: Rest) -> None:
        name = rest.collection()
        writer = rest.with_token(access=[{"collection": name, "access": "prw"}])
        writer.fill(name, range(2))
        assert writer.ok("GET", f"/collections/{name}")["points_count"] == 2
        writer.refused(403, "PUT", f"/collections/{name}/index", {"field_name": "n", "field_schema": "integer"})
        writer.refused(403, "PUT", f"/collections/{name}/vectors/x", {"dense": {"size": 2, "distance": "Dot"}})
        writer.refused(403, "PATCH", f"/collections/{name}", {"metadata": {"a": 1}})
        writer.refused(403, "GET", f"/collections/{name}/snapshots")
        writer.refused(403, "GET", "/aliases")
        writer.refused(403, "GET", "/metrics")
        writer.close()

    def test_removing_the_value_revokes_at_once(self, rest: Rest) -> None:
        tokens, name = rest.collection(vectors={}, sparse_vectors={}), rest.collection()
        path = f"/collections/{tokens}/points"
        rest.ok("PUT", f"{path}?wait=true", {"points": [{"id": 1, "vector": {}, "payload": {"entry": "e1"}}]})
        claim = {"collection": tokens, "matches": [{"key": "entry", "value": "e1"}]}
        reader = rest.with_token(access=[{"collection": name, "access": "r"}], value_exists=claim)
        assert reader.count(name) == 0
        rest.ok("POST", f"{path}/delete?wait=true", {"points": [1]})
        reader.refused(401, "POST", f"/collections/{name}/points/count", {})
        rest.ok("DELETE", f"/collections/{tokens}")
        reader.refused(403, "POST", f"/collections/{name}/points/count", {})
        reader.close()

    def test_a_token_of_another_key_is_refused(self, rest: Rest) -> None:
        forged = jwt.encode({"access": "m"}, "another-key-of-32-characters-here!", algorithm="HS256")
        client = Rest(rest.server, {"authorization": f"Bearer {forged}"})
        answer = client.refused(403, "GET", "/collections")
        client.close()
        assert "collections" not in answer.text


class TestStrictMode:
    def test_a_limit_is_kept_by_null_and_never_zero(self, rest: Rest) -> None:
        name = rest.collection(strict_mode_config={"enabled": True, "max_query_limit": 5})
        path = f"/collections/{name}"
        rest.ok("PATCH", path, {"strict_mode_config": {"max_query_limit": None}})
        rest.refused(422, "PATCH", path, {"strict_mode_config": {"max_query_limit": 0}})
        assert rest.ok("GET", path)["config"]["strict_mode_config"]["max_query_limit"] == 5
        rest.refused(400, "POST", f"{path}/points/scroll", {"limit": 6})

    def test_an_index_opens_the_filter(self, rest: Rest) -> None:
        name = rest.collection(strict_mode_config={"enabled": True, "unindexed_filtering_retrieve": False})
        only = {"must": [{"key": "n", "match": {"value": 1}}]}
        rest.refused(400, "POST", f"/collections/{name}/points/count", {"filter": only})
        rest.ok("PUT", f"/collections/{name}/index?wait=true", {"field_name": "n", "field_schema": "integer"})
        assert rest.count(name, only) == 0

    def test_writes_beyond_the_rate_are_429_and_waiting_helps(self, rest: Rest) -> None:
        name = rest.collection(strict_mode_config={"enabled": True, "write_rate_limit": 60})
        answers = []
        for start in range(0, 200, 10):
            points = [{"id": start + i, "vector": {"d-old": [1, 0, 0, 0]}} for i in range(10)]
            answers.append(rest.raw("PUT", f"/collections/{name}/points?wait=true", {"points": points}))
            if answers[-1].status_code != 200:
                break
        assert answers[-1].status_code == 429
        wait = int(answers[-1].headers["retry-after"])
        assert 1 <= wait <= 20
        rest.ok("PATCH", f"/collections/{name}", {"strict_mode_config": {"write_rate_limit": 4_000_000_000}})
        rest.fill(name, range(500, 510))

    def test_a_three_leg_query_costs_three_reads(self, rest: Rest) -> None:
        name = rest.collection(strict_mode_config={"enabled": True, "read_rate_limit": 6})
        leg = {"query": [1, 0, 0, 0], "using": "d-old"}
        body = {"prefetch": [leg, leg | {"limit": 3}, leg | {"limit": 4}], "query": {"fusion": "rrf"}}
        statuses = [rest.raw("POST", f"/collections/{name}/points/query", body).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]

    def test_a_full_collection_takes_no_more_points(self, rest: Rest) -> None:
        name = rest.collection(strict_mode_config={"enabled": True, "max_points_count": 5})
        deadline = time.monotonic() + 30
        status, start = 200, 0
        while status == 200 and time.monotonic() < deadline:
            points = [{"id": start, "vector": {"d-old": [1, 0, 0, 0]}}]
            status = rest.raw("PUT", f"/collections/{name}/points?wait=true", {"points": points}).status_code
            start += 1
        assert status == 400
        assert rest.count(name) >= 5

    def test_a_second_vector_counts_towards_the_bytes(self, rest: Rest) -> None:
        name = rest.collection(strict_mode_config={"enabled": True, "max_collection_vector_size_bytes": 500_000})
        rest.ok("PUT", f"/collections/{name}/vectors/d-new?wait=true", {"dense": {"size": 1024, "distance": "Dot"}})
        rest.fill(name, range(1, 201))
        statuses = set()
        for start in range(1, 201, 10):
            vectors = [{"id": start + i, "vector": {"d-new": [0.5] * 1024}} for i in range(10)]
            answer = rest.raw("PUT", f"/collections/{name}/points/vectors?wait=true", {"points": vectors})
            statuses.add(answer.status_code)
        assert statuses == {200, 400}
