"""What a model knows of its tenants: what reading all of them anew would say, without reading what has not changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.model_followers import Followers
from searchops.planning.names import CELL_ANNOTATION
from searchops.runtime.cache import CachedObject, ObjectCache
from searchops_sandbox.fleet import tenant_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("a", "b", "c")
MODELS = ("one", "two")
CHANGES = ("model", "paused", "bound", "bound elsewhere", "placed", "deleting", "unreadable", "failed", "held back")


class Parser:
    """Counts what it parses."""

    def __init__(self) -> None:
        self.parsed = 0

    def __call__(self, raw: Mapping[str, Any]) -> SearchTenant:
        self.parsed += 1
        return SearchTenant.model_validate(raw)


def revision(model: str, number: int) -> str:
    return f"{model}-r{number}-{number:08x}"


def raw_tenant(name: str, version: int, model: str, what: str) -> dict[str, Any]:
    raw = tenant_manifest(name, region="eu", model=model)
    raw["metadata"] |= {
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "generation": version,
        "creationTimestamp": "2026-11-01T00:00:00Z",
        "labels": {"step": str(version)},
    }
    match what:
        case "paused":
            raw["spec"]["paused"] = True
        case "bound":
            raw["status"] = {"binding": {"revision": revision(model, version)}}
        case "bound elsewhere":
            other = next(one for one in MODELS if one != model)
            raw["status"] = {"previous": {"revision": revision(other, version)}}
        case "placed":
            raw["metadata"]["annotations"] = {CELL_ANNOTATION: "eu-1"}
        case "deleting":
            raw["metadata"]["deletionTimestamp"] = "2026-11-02T00:00:00Z"
            raw["status"] = {"binding": {"revision": revision(model, version)}}
        case "unreadable":
            raw["spec"]["isolation"] = "None"
        case "held back":
            moment = {"lastTransitionTime": "2026-11-01T00:00:00Z", "observedGeneration": version}
            condition = {"type": "ModelBound", "status": "False", "reason": "PinnedQueriesLost", "message": "no"}
            raw["status"] = {"conditions": [{**condition, **moment}]}
        case "failed":
            moment = {"lastTransitionTime": "2026-11-01T00:00:00Z", "observedGeneration": version}
            raw["status"] = {
                "conditions": [
                    {"type": "ModelBound", "status": "False", "reason": "RebuildFailed", "message": "no", **moment}
                ]
            }
    return raw


def cache_with(parser: Parser) -> ObjectCache[SearchTenant]:
    cache: ObjectCache[SearchTenant] = ObjectCache("searchtenants", parser)
    cache.add_index("model", lambda cached: (_model(cached),))
    return cache


def _model(cached: CachedObject) -> str:
    return str(cached.raw["spec"]["model"]["name"])


def bound_elsewhere(cache: ObjectCache[SearchTenant], model: str) -> tuple[str, ...]:
    """By looking at every tenant."""
    found = {
        named["revision"]
        for cached in cache
        if cached.deleting or _model(cached) != model
        for named in (cached.status.get("binding"), cached.status.get("previous"))
        if named and named["revision"].startswith(f"{model}-r")
    }
    return tuple(sorted(found))


def unread(cache: ObjectCache[SearchTenant], model: str) -> int:
    """By looking at every tenant."""
    placed = [cached for cached in cache if _model(cached) == model and CELL_ANNOTATION in cached.annotations]
    return sum("binding" not in cached.status for cached in placed)


steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(MODELS), st.sampled_from((*CHANGES, "gone", "look"))),
    max_size=25,
)


@given(steps)
def test_followers_are_those_that_reading_all_anew_would_find(history: list[tuple[str, str, str]]) -> None:
    cache = cache_with(Parser())
    followers = Followers(cache)
    for version, (name, model, what) in enumerate(history, start=1):
        if what != "look":
            raw = raw_tenant(name, version, model, "model" if what == "gone" else what)
            cache.apply("DELETED" if what == "gone" else "MODIFIED", raw)
        for one in MODELS:
            assert followers.of(one) == Followers(cache).of(one)
            assert followers.bound_elsewhere(one) == bound_elsewhere(cache, one)
            assert followers.unread(one) == unread(cache, one)


def test_only_what_has_changed_is_parsed_again() -> None:
    parser = Parser()
    cache = cache_with(parser)
    followers = Followers(cache)
    for name in NAMES:
        cache.apply("ADDED", raw_tenant(name, 1, "one", "model"))
    assert [fact.name for fact in followers.of("one")] == list(NAMES)
    assert parser.parsed == len(NAMES)
    cache.apply("MODIFIED", raw_tenant("b", 2, "one", "paused"))
    assert {fact.name: fact.held for fact in followers.of("one")} == {"a": False, "b": True, "c": False}
    assert parser.parsed == len(NAMES) + 1
    assert followers.of("two") == ()


def test_who_is_held_back_by_its_own_pinned_queries_is_held() -> None:
    cache = cache_with(Parser())
    followers = Followers(cache)
    cache.apply("ADDED", raw_tenant("a", 1, "one", "held back"))
    cache.apply("ADDED", raw_tenant("b", 1, "one", "failed"))
    assert [(fact.name, fact.held, fact.failed) for fact in followers.of("one")] == [
        ("a", True, False),
        ("b", False, True),
    ]
