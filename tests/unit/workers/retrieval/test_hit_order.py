"""The order of hits must not depend on the order in which a server answers equal scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from searchops.api.retrieval import AnalyserSettings, Binding, Floors, RetrievalProfile, Weights
from searchops_workers.retrieval.query import build_request
from searchops_workers.retrieval.results import LegHit, fuse
from searchops_workers.retrieval.search import Searcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops_workers.retrieval.query import SearchRequest

ANALYSER = AnalyserSettings(languages=("en",))
DENSE = Binding(
    revision="r1", encoder="r1", vector="d-abc", dimension=2, analyser=ANALYSER, profile=RetrievalProfile(name="plain")
)
scores = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.1, 0.2, 0.2000001, 0.3])), unique_by=lambda x: x[0])


def hits(pairs: Sequence[tuple[int, float]]) -> list[LegHit]:
    return [LegHit(f"p{number:02d}", score) for number, score in pairs]


@given(st.tuples(scores, scores, scores), st.randoms(use_true_random=False), st.integers(1, 20))
def test_shuffled_ties_give_the_same_hits(
    legs: tuple[list[tuple[int, float]], ...], random: object, limit: int
) -> None:
    request = build_request("red pump", DENSE, dense=[1.0, 0.0], limit=limit)
    names = [leg.name for leg in request.legs]
    ordered = {name: hits(sorted(leg, key=lambda pair: -pair[1])) for name, leg in zip(names, legs, strict=True)}
    shuffled = {}
    for name, leg in zip(names, legs, strict=True):
        mixed = list(leg)
        random.shuffle(mixed)  # type: ignore[attr-defined]
        shuffled[name] = hits(sorted(mixed, key=lambda pair: -pair[1]))
    assert fuse(request, ordered) == fuse(request, shuffled)


def test_fusion_is_weighted_and_says_which_legs_found_a_hit() -> None:
    profile = RetrievalProfile(name="x", rrf_k=60, weights=Weights(lex=2.0, tri=0.0, dense=1.0))
    binding = DENSE.model_copy(update={"profile": profile})
    request = build_request("red pump", binding, dense=[1.0, 0.0])
    assert [leg.name for leg in request.legs] == ["lex", "dense"]
    found = fuse(request, {"lex": hits([(1, 9.0), (2, 8.0)]), "dense": hits([(2, 0.9)])})
    assert [hit.product_id for hit in found] == ["p02", "p01"]
    assert found[0].score == 2 / 62 + 1 / 61
    assert dict(found[0].legs) == {"lex": 2, "dense": 1}


def test_equal_fused_scores_are_ordered_by_product_id() -> None:
    profile = RetrievalProfile(name="x", weights=Weights(lex=1.0, tri=0.0, dense=1.0))
    request = build_request("red pump", DENSE.model_copy(update={"profile": profile}), dense=[1.0, 0.0])
    found = fuse(request, {"lex": hits([(2, 2.0), (1, 1.0)]), "dense": hits([(1, 0.9), (2, 0.8)])})
    assert [hit.product_id for hit in found] == ["p01", "p02"]


def test_floors_and_limits_travel_with_their_legs() -> None:
    profile = RetrievalProfile(name="x", floors=Floors(lex=1.5, dense=0.3), prefetch_limit=50, over_fetch=4)
    request = build_request("red pump", DENSE.model_copy(update={"profile": profile}), dense=[1.0, 0.0], limit=5)
    assert [(leg.name, leg.floor) for leg in request.legs] == [("lex", 1.5), ("tri", None), ("dense", 0.3)]
    assert (request.prefetch, request.fetch, request.limit) == (50, 20, 5)


class Encoder:
    def __init__(self) -> None:
        self.texts: list[str] = []

    async def encode(self, texts: Sequence[str]) -> list[list[float]]:
        self.texts += texts
        return [[1.0, 0.0] for _ in texts]


class Legs:
    def __init__(self) -> None:
        self.requests: list[SearchRequest] = []

    async def legs(self, request: SearchRequest) -> Mapping[str, Sequence[LegHit]]:
        self.requests.append(request)
        return {leg.name: hits([(1, 1.0)]) for leg in request.legs}


async def test_a_code_is_never_encoded_and_words_are_once() -> None:
    encoder, legs = Encoder(), Legs()
    searcher = Searcher(legs)
    answer = await searcher.search("TN-2110", DENSE, encoder)
    assert (answer.legs, answer.lexical_only, encoder.texts) == (("lex", "tri"), True, [])
    answer = await searcher.search("red pump", DENSE, encoder)
    assert (answer.legs, answer.lexical_only, answer.degraded) == (("lex", "tri", "dense"), False, False)
    assert encoder.texts == ["red pump"]


async def test_without_the_encoder_the_lexical_legs_answer_and_say_so() -> None:
    encoder = Encoder()
    answer = await Searcher(Legs()).search("red pump", DENSE, encoder, degraded="no server answers")
    assert answer.degraded
    assert answer.reason == "no server answers"
    assert answer.legs == ("lex", "tri")
    assert encoder.texts == []


async def test_a_query_of_nothing_asks_nothing() -> None:
    legs = Legs()
    answer = await Searcher(legs).search(" ?! ", DENSE, Encoder())
    assert (answer.hits, legs.requests) == ((), [])
