"""What the product relies on, as effects: ownership, switches, guarded writes, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from searchops_sandbox.qdrant.contract import Rest

LACKS_NEW = {"must_not": [{"has_vector": "d-new"}]}


def metadata(rest: Rest, name: str) -> Any:
    return rest.ok("GET", f"/collections/{name}")["config"].get("metadata", {})


class TestOwnership:
    def test_flat_keys_are_merged_and_null_removes(self, rest: Rest) -> None:
        name = rest.collection(metadata={"searchops.dev/uid": "u1", "searchops.dev/pending": "p"})
        rest.ok("PATCH", f"/collections/{name}", {"metadata": {"searchops.dev/generation": 2}})
        rest.ok("PATCH", f"/collections/{name}", {"metadata": {"searchops.dev/pending": None}})
        assert metadata(rest, name) == {"searchops.dev/uid": "u1", "searchops.dev/generation": 2}

    def test_nested_objects_are_replaced_whole(self, rest: Rest) -> None:
        name = rest.collection(metadata={"owner": {"uid": "u1", "generation": 1}})
        rest.ok("PATCH", f"/collections/{name}", {"metadata": {"owner": {"generation": 2}}})
        assert metadata(rest, name) == {"owner": {"generation": 2}}

    def test_patch_through_an_alias_reaches_the_collection(self, rest: Rest) -> None:
        name = rest.collection()
        rest.ok("PATCH", f"/collections/{rest.alias(name)}", {"metadata": {"via": "alias"}})
        assert metadata(rest, name) == {"via": "alias"}

    def test_a_second_create_changes_nothing(self, rest: Rest) -> None:
        name = rest.collection(metadata={"uid": "first"})
        rest.refused(409, "PUT", f"/collections/{name}", {"vectors": {}, "metadata": {"uid": "second"}})
        assert metadata(rest, name) == {"uid": "first"}

    def test_a_collection_without_vectors_holds_tokens(self, rest: Rest) -> None:
        name = rest.collection(vectors={}, sparse_vectors={})
        rest.ok(
            "PUT", f"/collections/{name}/points?wait=true", {"points": [{"id": 1, "vector": {}, "payload": {"e": 1}}]}
        )
        assert rest.payloads(name, [1]) == {1: {"e": 1}}
        assert rest.ok("GET", f"/collections/{name}")["config"]["params"]["vectors"] == {}


class TestAliases:
    def test_one_action_moves_reads_at_once(self, rest: Rest) -> None:
        old, new = rest.collection(), rest.collection()
        rest.fill(old, range(3))
        rest.fill(new, range(5))
        alias = rest.alias(old)
        assert rest.count(alias) == 3
        rest.point_alias(alias, new)
        assert rest.count(alias) == 5
        assert rest.count(old) == 3

    def test_actions_before_a_bad_one_stay_applied(self, rest: Rest) -> None:
        name = rest.collection()
        good = {"create_alias": {"alias_name": f"{name}.a", "collection_name": name}}
        bad = {"create_alias": {"alias_name": f"{name}.b", "collection_name": "contract-nothing"}}
        rest.refused(404, "POST", "/collections/aliases", {"actions": [good, bad]})
        aliases = rest.ok("GET", f"/collections/{name}/aliases")["aliases"]
        assert [a["alias_name"] for a in aliases] == [f"{name}.a"]

    def test_deleting_an_alias_as_a_collection_does_nothing(self, rest: Rest) -> None:
        name = rest.collection()
        assert rest.ok("DELETE", f"/collections/{rest.alias(name)}") is False
        assert rest.ok("GET", f"/collections/{name}/exists") == {"exists": True}

    def test_dropping_a_collection_drops_its_aliases(self, rest: Rest) -> None:
        name = rest.collection()
        alias = rest.alias(name)
        assert rest.ok("DELETE", f"/collections/{name}") is True
        assert rest.ok("GET", f"/collections/{alias}/exists") == {"exists": False}
        assert alias not in [a["alias_name"] for a in rest.ok("GET", "/aliases")["aliases"]]

    def test_rename(self, rest: Rest) -> None:
        name = rest.collection()
        alias = rest.alias(name)
        rename = {"rename_alias": {"old_alias_name": alias, "new_alias_name": f"{alias}.new"}}
        rest.ok("POST", "/collections/aliases", {"actions": [rename]})
        assert rest.ok("GET", f"/collections/{alias}/exists") == {"exists": False}
        assert rest.count(f"{alias}.new") == 0


class TestGuardedWrites:
    def test_insert_only_leaves_what_is_there(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 2), by="live")
        points = [{"id": i, "vector": {"d-old": [1, 1, 1, 1]}, "payload": {"by": "backfill"}} for i in (1, 2)]
        rest.ok("PUT", f"/collections/{name}/points?wait=true", {"points": points, "update_mode": "insert_only"})
        assert rest.payloads(name, [1, 2]) == {1: {"n": 1, "by": "live"}, 2: {"by": "backfill"}}

    def test_older_versions_are_skipped_and_missing_points_inserted(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 3), version=5)

        def write(version: int) -> None:
            points = [{"id": i, "vector": {"d-old": [0, 0, 0, 1]}, "payload": {"version": version}} for i in (1, 3)]
            guard = {"must": [{"key": "version", "range": {"lt": version}}]}
            rest.ok("PUT", f"/collections/{name}/points?wait=true", {"points": points, "update_filter": guard})

        write(4)
        assert {i: p["version"] for i, p in rest.payloads(name, [1, 2, 3]).items()} == {1: 5, 2: 5, 3: 4}
        write(6)
        assert {i: p["version"] for i, p in rest.payloads(name, [1, 2, 3]).items()} == {1: 6, 2: 5, 3: 6}

    def test_a_tombstone_without_vectors_is_found_by_no_leg(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 4))
        tombstone = {"points": [{"id": 2, "vector": {}, "payload": {"deleted": 7}}]}
        rest.ok("PUT", f"/collections/{name}/points?wait=true", tombstone)
        hits = rest.ok("POST", f"/collections/{name}/points/query", {"query": [1, 1, 1, 1], "using": "d-old"})["points"]
        assert {hit["id"] for hit in hits} == {1, 3}
        assert rest.count(name, {"must": [{"is_empty": {"key": "deleted"}}]}) == 2

    def test_a_put_of_one_vector_removes_the_others(self, rest: Rest) -> None:
        name = rest.collection()
        both = {"d-old": [1, 0, 0, 0], "lex": {"indices": [1], "values": [1.0]}}
        rest.ok("PUT", f"/collections/{name}/points?wait=true", {"points": [{"id": 1, "vector": both}]})
        rest.ok(
            "PUT", f"/collections/{name}/points?wait=true", {"points": [{"id": 1, "vector": {"d-old": [1, 0, 0, 0]}}]}
        )
        assert rest.count(name, {"must": [{"has_vector": "lex"}]}) == 0

    def test_payload_can_be_merged_replaced_and_removed(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 3))
        path = f"/collections/{name}/points/payload"
        rest.ok("POST", f"{path}?wait=true", {"payload": {"a": 1}, "points": [1]})
        rest.ok(
            "PUT", f"{path}?wait=true", {"payload": {"b": 2}, "filter": {"must": [{"key": "n", "match": {"value": 2}}]}}
        )
        assert rest.payloads(name, [1, 2]) == {1: {"n": 1, "a": 1}, 2: {"b": 2}}
        rest.ok("POST", f"{path}/delete?wait=true", {"keys": ["n"], "points": [1]})
        rest.ok("POST", f"{path}/clear?wait=true", {"points": [2]})
        assert rest.payloads(name, [1, 2]) == {1: {"a": 1}, 2: {}}


class TestNamedVectors:
    def test_points_that_lack_the_vector_are_the_resume_cursor(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 8))
        rest.ok("PUT", f"/collections/{name}/vectors/d-new?wait=true", {"dense": {"size": 3, "distance": "Cosine"}})
        seen: list[int] = []
        while True:
            body = {"limit": 3, "filter": LACKS_NEW, "with_payload": False}
            page = [p["id"] for p in rest.ok("POST", f"/collections/{name}/points/scroll", body)["points"]]
            if not page:
                break
            seen += page
            vectors = [{"id": i, "vector": {"d-new": [1.0, float(i), 0.0]}} for i in page]
            rest.ok("PUT", f"/collections/{name}/points/vectors?wait=true", {"points": vectors})
        assert seen == list(range(1, 8))
        assert rest.count(name, LACKS_NEW) == 0
        assert rest.count(name, {"must": [{"has_vector": "d-old"}]}) == 7

    def test_backfill_never_overwrites_a_fresher_vector(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 3))
        rest.ok("PUT", f"/collections/{name}/vectors/d-new?wait=true", {"dense": {"size": 2, "distance": "Dot"}})
        path = f"/collections/{name}/points/vectors?wait=true"
        rest.ok("PUT", path, {"points": [{"id": 1, "vector": {"d-new": [9, 9]}}]})
        stale = [{"id": i, "vector": {"d-new": [1, 1]}} for i in (1, 2)]
        rest.ok("PUT", path, {"points": stale, "update_filter": LACKS_NEW})
        found = rest.ok("POST", f"/collections/{name}/points", {"ids": [1, 2], "with_vector": ["d-new"]})
        assert {p["id"]: p["vector"] for p in found} == {1: {"d-new": [9.0, 9.0]}, 2: {"d-new": [1.0, 1.0]}}

    def test_a_missing_point_is_404_after_the_others_were_written(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 3))
        rest.ok("PUT", f"/collections/{name}/vectors/d-new?wait=true", {"dense": {"size": 2, "distance": "Dot"}})
        vectors = [{"id": i, "vector": {"d-new": [1, 1]}} for i in (1, 999, 2)]
        rest.refused(404, "PUT", f"/collections/{name}/points/vectors?wait=true", {"points": vectors})
        assert rest.count(name, LACKS_NEW) == 0

    def test_removing_a_vector_leaves_the_point(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 3))
        for _ in range(2):
            rest.ok("DELETE", f"/collections/{name}/vectors/d-old?wait=true")
        assert rest.count(name) == 2
        rest.refused(400, "POST", f"/collections/{name}/points/query", {"query": [1, 0, 0, 0], "using": "d-old"})

    def test_vectors_of_points_can_be_deleted(self, rest: Rest) -> None:
        name = rest.collection()
        rest.fill(name, range(1, 3))
        rest.ok("POST", f"/collections/{name}/points/vectors/delete?wait=true", {"points": [1], "vector": ["d-old"]})
        assert rest.count(name, {"must": [{"has_vector": "d-old"}]}) == 1

    @pytest.mark.parametrize("vector", [{"d-old": [1, 0]}, {"d-other": [1, 0, 0, 0]}, [1, 0, 0, 0]])
    def test_a_batch_with_a_wrong_vector_is_refused(self, rest: Rest, vector: Any) -> None:
        name = rest.collection()
        good = {"id": 1, "vector": {"d-old": [1, 0, 0, 0]}}
        rest.refused(
            400, "PUT", f"/collections/{name}/points?wait=true", {"points": [good, {"id": 2, "vector": vector}]}
        )
        assert rest.count(name, {"must": [{"has_id": [2]}]}) == 0


class TestQueries:
    @pytest.fixture
    def shop(self, rest: Rest) -> str:
        name = rest.collection()
        points = [
            {
                "id": i,
                "vector": {
                    "d-old": [1.0, 0.1 * i, 0.0, 0.0],
                    "lex": {"indices": [1, 10 + i], "values": [1.0, 1.0]},
                },
                "payload": {"sku": f"S{i}", "price": float(i), "tag": ["even" if i % 2 == 0 else "odd"], "new": i > 4},
            }
            for i in range(1, 7)
        ]
        rest.ok("PUT", f"/collections/{name}/points?wait=true", {"points": points})
        return name

    def hits(self, rest: Rest, name: str, **body: Any) -> list[tuple[int, float]]:
        points = rest.ok("POST", f"/collections/{name}/points/query", body)["points"]
        return [(p["id"], p["score"]) for p in points]

    def test_weighted_rrf_of_two_legs(self, rest: Rest, shop: str) -> None:
        prefetch = [
            {"query": [1, 0, 0, 0], "using": "d-old", "limit": 3},
            {"query": {"indices": [13], "values": [1.0]}, "using": "lex", "limit": 3},
        ]
        fused = self.hits(rest, shop, prefetch=prefetch, query={"rrf": {"k": 60, "weights": [1.0, 3.0]}}, limit=3)
        assert [ident for ident, _ in fused] == [3, 1, 2]
        assert fused[1][1] == pytest.approx(1 / 60, rel=1e-5)

    def test_a_leg_below_its_floor_returns_nothing(self, rest: Rest, shop: str) -> None:
        leg = {"query": [0, 0, 0, 1], "using": "d-old", "limit": 3, "score_threshold": 0.5}
        assert self.hits(rest, shop, prefetch=[leg], query={"fusion": "rrf"}) == []

    def test_formula_boosts_by_payload(self, rest: Rest, shop: str) -> None:
        rest.ok("PUT", f"/collections/{shop}/index?wait=true", {"field_name": "price", "field_schema": "float"})
        formula = {"sum": ["$score", {"mult": [10.0, "price"]}]}
        leg = {"query": [1, 0, 0, 0], "using": "d-old", "limit": 6}
        boosted = self.hits(rest, shop, prefetch=[leg], query={"formula": formula}, limit=2)
        assert [ident for ident, _ in boosted] == [6, 5]
        assert boosted[0][1] > 60

    def test_nearest_by_id_leaves_itself_out(self, rest: Rest, shop: str) -> None:
        assert [i for i, _ in self.hits(rest, shop, query=1, using="d-old", limit=2)] == [2, 3]
        rest.refused(404, "POST", f"/collections/{shop}/points/query", {"query": 99, "using": "d-old"})

    @pytest.mark.parametrize(
        ("only", "expected"),
        [
            ({"must": [{"key": "sku", "match": {"any": ["S1", "S2", "X"]}}]}, {1, 2}),
            ({"must": [{"key": "tag", "match": {"except": ["even"]}}]}, {1, 3, 5}),
            ({"must": [{"key": "price", "range": {"gt": 2, "lte": 4}}]}, {3, 4}),
            ({"should": [{"has_id": [1]}, {"key": "price", "range": {"gte": 6}}]}, {1, 6}),
            ({"must_not": [{"has_id": [1, 2, 3]}]}, {4, 5, 6}),
            ({"must": [{"is_empty": {"key": "nothing"}}, {"has_id": [5]}]}, {5}),
            ({"min_should": {"conditions": [{"has_id": [1, 2]}, {"has_id": [2, 3]}], "min_count": 2}}, {2}),
            ({"must": [{"key": "new", "match": {"value": True}}]}, {5, 6}),
            ({"must_not": [{"key": "new", "match": {"value": False}}]}, {5, 6}),
            ({"must": [{"must_not": [{"key": "tag", "match": {"value": "odd"}}]}]}, {2, 4, 6}),
        ],
    )
    def test_filters(self, rest: Rest, shop: str, only: Any, expected: set[int]) -> None:
        found = self.hits(rest, shop, query=[1, 0, 0, 0], using="d-old", filter=only)
        assert {ident for ident, _ in found} == expected
        assert rest.count(shop, only) == len(expected)

    def test_payload_and_vector_selectors(self, rest: Rest, shop: str) -> None:
        body = {"query": [1, 0, 0, 0], "using": "d-old", "limit": 1, "with_payload": ["sku"], "with_vector": ["lex"]}
        (hit,) = rest.ok("POST", f"/collections/{shop}/points/query", body)["points"]
        assert hit["payload"] == {"sku": "S1"}
        assert set(hit["vector"]) == {"lex"}

    def test_scroll_pages_in_order_of_ids(self, rest: Rest, shop: str) -> None:
        seen, offset = [], None
        while True:
            body = {"limit": 4, "offset": offset}
            page = rest.ok("POST", f"/collections/{shop}/points/scroll", body)
            seen += [point["id"] for point in page["points"]]
            offset = page["next_page_offset"]
            if offset is None:
                break
        assert seen == [1, 2, 3, 4, 5, 6]

    def test_facets_need_an_index(self, rest: Rest, shop: str) -> None:
        rest.refused(400, "POST", f"/collections/{shop}/facet", {"key": "tag"})
        rest.ok("PUT", f"/collections/{shop}/index?wait=true", {"field_name": "tag", "field_schema": "keyword"})
        hits = rest.ok("POST", f"/collections/{shop}/facet", {"key": "tag", "exact": True})["hits"]
        assert {hit["value"]: hit["count"] for hit in hits} == {"even": 3, "odd": 3}

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (422, {"query": [1, 0, 0, 0], "using": "d-old", "limit": 0}),
            (400, {"query": [1, 0], "using": "d-old"}),
            (400, {"query": {"fusion": "rrf"}}),
            (422, {"query": {"indices": [1, 1], "values": [1.0, 1.0]}, "using": "lex"}),
        ],
    )
    def test_odd_queries_are_refused(self, rest: Rest, shop: str, status: int, body: Any) -> None:
        answer = rest.refused(status, "POST", f"/collections/{shop}/points/query", body)
        assert answer.json()["status"]["error"]
