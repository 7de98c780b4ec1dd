"""What is counted of a tenant's searches: whose, of how many, where it is read; and that the operator's queries fit."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import httpx
import jwt
import promql_parser
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from searchops.adapters.prometheus import query_of
from searchops.api.live_signals import BUCKETS, SEARCH_SECONDS, SignalName, SlowerThan, Window, tenant_label
from searchops.api.retrieval import Binding, RetrievalProfile
from searchops_workers.gateway.app import Gateway, build_parts
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.searches import Searches
from searchops_workers.gateway.settings import GatewaySettings
from searchops_workers.gateway.tenant_searches import TenantSearches
from searchops_workers.retrieval.results import Hit
from searchops_workers.retrieval.search import SearchAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from searchops_workers.gateway.app import Parts

CLAIMS = {"access": [{"collection": "prod.m.acme", "access": "r"}], "cell": "eu-1"}
TOKEN = jwt.encode(CLAIMS, "a-key-of-at-least-thirty-two-bytes!!", algorithm="HS256")
BINDING = Binding(profile=RetrievalProfile(name="plain"))
HIT = Hit("sku-1", 1.0, {"lex": 1}, {"title": "x"})
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(tenants: TenantSearches) -> Samples:
    text = generate_latest(tenants.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(tenant: str, found: Samples) -> dict[str, float]:
    """One tenant's samples by the ends of their names, buckets by their bounds."""
    mine = {}
    for (name, labels), value in found.items():
        given = dict(labels)
        if given["tenant"] == tenant:
            mine[given.get("le") or name.removeprefix("searchops_gateway_tenant_")] = value
    return mine


class Answers:
    """Stands in for the search itself: answers what it is told to, or fails."""

    def __init__(self) -> None:
        self.next: Any = None

    async def search(self, *_: Any) -> tuple[Binding, SearchAnswer]:
        if self.next == "hang":
            await asyncio.Event().wait()
        if isinstance(self.next, Exception):
            raise self.next
        return BINDING, self.next


@asynccontextmanager
async def gateway(
    monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Answers, Parts]]:
    given = {"tenant_metrics_port": 0, "host": "127.0.0.1", "request_seconds": 0.2, **settings}
    parts = build_parts(GatewaySettings.model_validate(given))
    answers = Answers()
    monkeypatch.setattr(Searches, "search", lambda _, *arguments: answers.search(*arguments))
    app = Gateway(parts).application()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://gateway",
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as http,
    ):
        yield http, answers, parts


def answer(*hits: Hit, degraded: bool = False) -> SearchAnswer:
    return SearchAnswer(hits, ("lex",), lexical_only=True, reason="", degraded=degraded)


async def ask(http: httpx.AsyncClient) -> int:
    return (await http.post("/v1/tenants/m.acme/search", json={"query": "x"})).status_code


async def test_searches_are_counted_by_what_came_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(monkeypatch) as (http, answers, parts):
        statuses = []
        outcomes = (
            answer(HIT),
            answer(),
            answer(HIT, degraded=True),
            Problem(503, "cell", code="x"),
            "hang",
            RuntimeError("broken"),
            Problem(429, "too many", code="x"),
            Problem(422, "bad filter", code="x"),
        )
        for outcome in outcomes:
            answers.next = outcome
            statuses.append(await ask(http))
        assert statuses == [200, 200, 200, 503, 504, 500, 429, 422]
        mine = of("m.acme", samples(parts.metrics.tenants))
        assert mine["search_seconds_count"] == mine["+Inf"] == 6.0
        assert mine["empty_searches_total"] == 1.0
        assert mine["failed_searches_total"] == 4.0
        assert mine["0.1"] == 5.0, "the one that hung took 0.2 s"
        assert mine["0.5"] == 6.0
        assert "acme" not in (await http.get("/metrics")).text


async def test_a_tenant_that_nothing_was_ever_answered_for_has_no_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a token claims, it makes no series until the database has let it in."""
    async with gateway(monkeypatch) as (http, answers, parts):
        for outcome in (Problem(403, "no", code="x"), Problem(503, "cell", code="x"), RuntimeError("broken")):
            answers.next = outcome
            await ask(http)
        assert len(parts.metrics.tenants) == 0
        assert samples(parts.metrics.tenants) == {}


async def test_without_the_port_nothing_is_counted_by_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(monkeypatch, tenant_metrics_port=None) as (http, answers, parts):
        answers.next = answer(HIT)
        assert await ask(http) == 200
        assert len(parts.metrics.tenants) == 0


def test_no_more_tenants_than_allowed_and_those_searched_last_stay() -> None:
    tenants = TenantSearches(2)
    for name in ("m.a", "m.b", "m.a", "m.c"):
        tenants.answered(name, 0.01, empty=False, degraded=False)
    tenants.failed("m.b", 0.01)
    found = samples(tenants)
    assert {dict(labels)["tenant"] for _, labels in found} == {"m.a", "m.c"}
    assert of("m.a", found)["search_seconds_count"] == 2.0
    assert len(found) == 2 * 10


def test_all_series_of_a_tenant_begin_at_once() -> None:
    tenants = TenantSearches(1)
    tenants.answered("m.a", 0.25, empty=False, degraded=False)
    assert of("m.a", samples(tenants)) == {
        "0.1": 0.0,
        "0.25": 1.0,
        "0.5": 1.0,
        "1.0": 1.0,
        "2.5": 1.0,
        "+Inf": 1.0,
        "search_seconds_count": 1.0,
        "search_seconds_sum": 0.25,
        "empty_searches_total": 0.0,
        "failed_searches_total": 0.0,
    }


async def test_they_are_served_on_a_port_of_their_own_that_closes_with_the_gateway() -> None:
    tenants = TenantSearches(10)
    tenants.answered("m.acme", 0.01, empty=False, degraded=False)
    with tenants.served("127.0.0.1", 0) as port:
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        assert 'searchops_gateway_tenant_search_seconds_count{tenant="m.acme"} 1.0' in text
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"http://127.0.0.1:{port}/metrics")
    with tenants.served("127.0.0.1", None) as port:
        assert port is None


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector of a parsed query."""
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield from selectors(node.vector_selector)
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr():
            yield from selectors(node.expr)
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument)


def test_every_series_that_the_operator_asks_for_is_one_that_the_gateway_has() -> None:
    """A metric, label or bound that is renamed on either side is found here, and not by signals that stay Unknown."""
    tenants = TenantSearches(1)
    tenants.answered(tenant_label("m", "acme"), 0.01, empty=False, degraded=False)
    series = [(name, dict(labels)) for name, labels in samples(tenants)]
    start, asked = datetime(2026, 11, 24, tzinfo=UTC), 0
    bounds: tuple[SlowerThan, ...] = get_args(SlowerThan)
    windows = [Window(name, bound, start, 1) for name in get_args(SignalName) for bound in bounds]
    for window in windows:
        for selector in selectors(promql_parser.parse(query_of(window, ["m.acme"], {}))):
            asked += 1
            matchers = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            assert matchers.pop("tenant") == "m[.]acme"
            found = [labels for name, labels in series if name == selector.name]
            assert found, f"the gateway has no {selector.name}"
            assert [labels for labels in found if matchers.items() <= labels.items()], f"none with {matchers}"
    assert asked == 5 * (2 + 2 + 3)
    assert set(BUCKETS) == set(bounds)
    assert SEARCH_SECONDS in {name.removesuffix("_count") for name, _ in series}


@pytest.mark.parametrize("settings", [{"tenant_series": 0}, {"tenant_metrics_port": 70_000}])
def test_settings_have_bounds(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate(settings)
