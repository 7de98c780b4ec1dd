"""What a search costs in the gateway's own code: building the request, and fusing the legs' answers."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

import pytest

from scale.figures import SEED, Bench, Target
from searchops.api.retrieval import BUILTIN_PROFILES, AnalyserSettings, Binding, dense_vector
from searchops_workers.retrieval.query import build_request
from searchops_workers.retrieval.remote import batch_of
from searchops_workers.retrieval.results import LegHit, fuse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops_workers.retrieval.query import SearchRequest

pytestmark = pytest.mark.scale

HOLDOUT = Path(__file__).resolve().parents[1] / "fixtures" / "output" / "holdout" / "shop-core" / "1.0.0"
DIMENSION = 384
PRODUCTS = 2_000
REPEATS = 5
WARM_UP = 100


def test_building_a_request_and_fusing_its_answers() -> None:
    rng = random.Random(SEED)
    binding = Binding(
        encoder="shop-encoder-r1",
        vector=dense_vector("5ace5ace5ace"),
        dimension=DIMENSION,
        analyser=AnalyserSettings(languages=("en",)),
        profile=BUILTIN_PROFILES["default"],
    )
    dense = [rng.gauss(0, 1) for _ in range(DIMENSION)]
    lines = (HOLDOUT / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [query["text"] for query in map(json.loads, lines) if query["lang"] == "en"]
    for text in texts[:WARM_UP]:
        batch_of(build_request(text, binding, dense=dense))
    building, fusing, both = [], [], []
    three_legs = 0
    for _ in range(REPEATS):
        built, fused = [], []
        for text in texts:
            start = time.perf_counter_ns()
            request = build_request(text, binding, dense=dense, limit=10, filters={"brand": "acme"})
            batch = batch_of(request)
            built.append((time.perf_counter_ns() - start) / 1_000)
            answers = hits(request, rng)
            start = time.perf_counter_ns()
            found = fuse(request, answers)
            fused.append((time.perf_counter_ns() - start) / 1_000)
            assert len(batch) == len(request.legs) + 1
            assert [hit.product_id for hit in found] == by_the_formula(request, answers)
            three_legs += len(request.legs) == 3
        building.append(built)
        fusing.append(fused)
        both.append([one + other for one, other in zip(built, fused, strict=True)])
    assert three_legs > len(texts)  # most queries are no codes: the full request is what is timed
    bench = Bench("search")
    for name, runs in (("building the request", building), ("fusing three legs of 100 hits", fusing)):
        bench.record(f"search: {name}, p50", [percentile(run, 50) for run in runs], "µs", queries=len(texts))
        bench.record(f"search: {name}, p99", [percentile(run, 99) for run in runs], "µs", queries=len(texts))
    part = "a part of the promise only: network, JSON, tokens and admission are not in it, so False refutes, True hints"
    bench.record("search: both, p50", [percentile(run, 50) for run in both], "µs", Target("<=", 2_000), read=part)
    bench.record("search: both, p99", [percentile(run, 99) for run in both], "µs", Target("<=", 5_000), read=part)


def hits(request: SearchRequest, rng: random.Random) -> dict[str, list[LegHit]]:
    """As many hits a leg as were asked for, with ties, as BM25 over short documents gives them."""
    return {
        leg.name: [
            LegHit(f"p{product:04}", round(rng.random(), 2), {"title": "hex bolt M8"})
            for product in rng.sample(range(PRODUCTS), request.prefetch)
        ]
        for leg in request.legs
    }


def by_the_formula(request: SearchRequest, answers: Mapping[str, Sequence[LegHit]]) -> list[str]:
    """Weighted reciprocal rank fusion written down once more, leg by leg and product by product."""
    total: dict[str, float] = {}
    for leg in request.legs:
        order = [hit.product_id for hit in sorted(answers[leg.name], key=lambda hit: (-hit.score, hit.product_id))]
        for product in order:
            total[product] = total.get(product, 0.0) + leg.weight / (request.rrf_k + 1 + order.index(product))
    return sorted(total, key=lambda product: (-round(total[product], 12), product))[: request.limit]


def percentile(values: Sequence[float], share: int) -> float:
    return quantiles(values, n=100, method="inclusive")[share - 1]
