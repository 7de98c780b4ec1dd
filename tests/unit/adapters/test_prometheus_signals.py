"""Live signals over HTTP: what is asked, what is believed, and that whatever goes wrong is unknown in bounded time."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from searchops.adapters.prometheus import AT_ONCE, NAMED_TENANTS, PrometheusSignals, query_of, quoted
from searchops.api.live_signals import Share, Window
from searchops.runtime.errors import Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WINDOW = Window("ZeroResults", None, START, 1)
SLOW = Window("SlowSearches", "250ms", START, 6)
ROW = ({"tenant": "m.acme", "part": "of"}, "120"), ({"tenant": "m.acme", "part": "part"}, "3.5")


def vector(*rows: tuple[dict[str, str], Any]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [1764000000.0, value]} for labels, value in rows]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@asynccontextmanager
async def prometheus(handler: Handler, **settings: Any) -> AsyncIterator[PrometheusSignals]:
    app = web.Application()
    app.router.add_post("/prom/api/v1/query", handler)
    async with TestServer(app) as server:
        signals = PrometheusSignals(str(server.make_url("/prom/")), **settings)
        try:
            yield signals
        finally:
            await signals.close()


def saying(body: Any, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, content_type="application/json")

    return handler


async def test_a_window_is_asked_for_as_of_its_end_and_read_into_shares() -> None:
    forms: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        forms.append({**dict(await request.post()), "authorization": request.headers.get("Authorization")})
        return web.json_response(vector(*ROW, ({"tenant": "m.other", "part": "of"}, "9")))

    async with prometheus(handler, matchers={"namespace": "searchops"}) as signals:
        found = await signals.shares(WINDOW, ["m.acme", "m.missing"])
    assert found == {"m.acme": Share(120.0, 3.5)}
    assert forms == [
        {
            "query": (
                "label_replace(sum by (tenant) (increase(searchops_gateway_tenant_search_seconds_count"
                '{namespace="searchops",tenant=~"m[.]acme|m[.]missing"}[1h])), "part", "of", "", "") or '
                "label_replace(sum by (tenant) (increase(searchops_gateway_tenant_empty_searches_total"
                '{namespace="searchops",tenant=~"m[.]acme|m[.]missing"}[1h])), "part", "part", "", "")'
            ),
            "time": "1795525200",
            "timeout": "5s",
            "authorization": None,
        }
    ]
    assert int(START.timestamp()) + 3600 == 1795525200


async def test_other_tenants_of_the_answer_are_left_out_and_half_an_answer_is_none() -> None:
    rows = (
        *ROW,
        ({"tenant": "m.unasked", "part": "of"}, "5"),
        ({"tenant": "m.unasked", "part": "part"}, "5"),
        ({"tenant": "m.half", "part": "of"}, "5"),
        ({"tenant": "m.other-half", "part": "part"}, "5"),
    )
    async with prometheus(saying(vector(*rows))) as signals:
        assert await signals.shares(WINDOW, ["m.acme", "m.half", "m.other-half"]) == {"m.acme": Share(120.0, 3.5)}
    async with prometheus(saying(vector())) as signals:
        assert await signals.shares(WINDOW, ["m.acme"]) == {}


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (
            saying({"status": "error", "error": "query timed\nout in expression evaluation"}, 503),
            "HTTP 503: query timed",
        ),
        (saying("<html>bad gateway", 502), "HTTP 502: <html>bad gateway"),
        (saying("moved", 302), "HTTP 302"),
        (saying("{"), "cannot be used (JSONDecodeError"),
        (saying("[" * 100_000), "cannot be used (RecursionError"),
        (saying([]), "cannot be used (TypeError"),
        (saying({"status": "error"}), "it holds no vector"),
        (saying({"status": "success", "data": {"resultType": "matrix", "result": []}}), "it holds no vector"),
        (saying({"status": "success", "data": None}), "cannot be used"),
        (saying({**vector(), "warnings": ["store 2 is down"]}), "it may be a part only: ['store 2 is down']"),
        (saying(vector(({"tenant": "m.acme"}, "1"))), "cannot be used (KeyError"),
        (saying(vector(({"part": "of"}, "1"))), "cannot be used (KeyError"),
        (saying(vector(({"tenant": "m.acme", "part": "whole"}, "1"))), "cannot be used (KeyError"),
        (saying(vector(({"tenant": "m.acme", "part": "of"}, "NaN"))), "a value is not finite"),
        (saying(vector(({"tenant": "m.acme", "part": "of"}, "+Inf"))), "a value is not finite"),
        (saying(vector(({"tenant": "m.acme", "part": "of"}, None))), "cannot be used (TypeError"),
        (saying(vector(({"tenant": "m.acme", "part": "of"}, "many"))), "cannot be used (ValueError"),
        (saying(vector(({"tenant": ["m"], "part": "of"}, "1"))), "cannot be used (TypeError"),  # type: ignore[dict-item]
    ],
)
async def test_what_is_no_answer_is_unknown(handler: Handler, said: str) -> None:
    async with prometheus(handler) as signals:
        with pytest.raises(Transient) as raised:
            await signals.shares(WINDOW, ["m.acme"])
    assert said in raised.value.message
    assert "/prom/api/v1/query" in raised.value.message
    assert len(raised.value.message) < 500


async def test_an_answer_without_end_is_cut_off() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1000):
            await answer.write(b" " * 65_536)
        return answer

    async with prometheus(handler, limit=200_000) as signals:
        with pytest.raises(Transient, match="more than 200000 bytes"):
            await signals.shares(WINDOW, ["m.acme"])


@pytest.mark.parametrize("dripping", [False, True])
async def test_silence_ends_at_the_deadline(dripping: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        if dripping:
            await answer.prepare(request)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if dripping:
                await answer.write(b" ")
        return answer

    async with prometheus(handler, seconds=0.2) as signals:
        started = time.monotonic()
        with pytest.raises(Transient, match=r"no answer within 0\.2 s"):
            await signals.shares(WINDOW, ["m.acme"])
        assert time.monotonic() - started < 3


async def test_nobody_there_and_a_connection_that_breaks_are_unknown() -> None:
    signals = PrometheusSignals("http://127.0.0.1:9")
    with pytest.raises(Transient, match=r"http://127\.0\.0\.1:9/api/v1/query"):
        await signals.shares(WINDOW, ["m.acme"])
    await signals.close()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with prometheus(handler) as broken:
        with pytest.raises(Transient):
            await broken.shares(WINDOW, ["m.acme"])


async def test_no_more_queries_at_once_than_it_bears() -> None:
    present = most = 0

    async def handler(_: web.Request) -> web.Response:
        nonlocal present, most
        present += 1
        most = max(most, present)
        await asyncio.sleep(0.02)
        present -= 1
        return web.json_response(vector(*ROW))

    async with prometheus(handler) as signals:
        await asyncio.gather(*(signals.shares(WINDOW, ["m.acme"]) for _ in range(3 * AT_ONCE)))
    assert most == AT_ONCE


async def test_the_token_is_read_anew_for_each_query_and_is_in_no_message(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(vector(), status=401 if "second" in str(seen[-1]) else 200)

    file = tmp_path / "token"
    file.write_text("first\n")
    async with prometheus(handler, token_file=file) as signals:
        await signals.shares(WINDOW, ["m.acme"])
        file.write_text("second")
        with pytest.raises(Transient, match="HTTP 401") as raised:
            await signals.shares(WINDOW, ["m.acme"])
        assert "second" not in raised.value.message
        for content in ("", "two words", "with\ttab"):
            file.write_text(content)
            with pytest.raises(Transient, match="holds no token"):
                await signals.shares(WINDOW, ["m.acme"])
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(Transient, match="cannot be read"):
            await signals.shares(WINDOW, ["m.acme"])
        file.unlink()
        with pytest.raises(Transient, match=r"token cannot be read \(FileNotFoundError\)"):
            await signals.shares(WINDOW, ["m.acme"])
    assert seen == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("window", [WINDOW, Window("Errors", None, START, 24), SLOW])
@pytest.mark.parametrize("tenants", [1, NAMED_TENANTS, NAMED_TENANTS + 1])
def test_every_query_is_promql_and_names_few_tenants(window: Window, tenants: int) -> None:
    query = query_of(window, [f"m.t{number}" for number in range(tenants)], {"cluster": "eu-1"})
    parsed = promql_parser.parse(query)
    assert isinstance(parsed, promql_parser.BinaryExpr)
    assert ("tenant=~" in query) is (tenants <= NAMED_TENANTS)
    assert f"[{window.hours}h]" in query
    assert len(query) < 10_000


def test_slow_searches_are_all_but_the_quick_ones() -> None:
    query = query_of(SLOW, ["m.acme"], {})
    assert (
        "label_replace(sum by (tenant) (increase(searchops_gateway_tenant_search_seconds_count"
        '{tenant=~"m[.]acme"}[6h])) - sum by (tenant) (increase(searchops_gateway_tenant_search_seconds_bucket'
        '{tenant=~"m[.]acme",le="0.25"}[6h])), "part", "part", "", "")'
    ) in query
    with pytest.raises(Transient, match="SlowSearches has no bound"):
        query_of(Window("SlowSearches", None, START, 1), ["m.acme"], {})


@given(st.text(max_size=40))
def test_no_label_value_leaves_its_quotes(value: str) -> None:
    query = query_of(WINDOW, [f"m.t{number}" for number in range(NAMED_TENANTS + 1)], {"cluster": value})
    assert isinstance(promql_parser.parse(query), promql_parser.BinaryExpr)
    selector = promql_parser.parse(f"up{{cluster={quoted(value)}}}")
    assert isinstance(selector, promql_parser.VectorSelector)
    (matcher,) = selector.matchers.matchers
    assert matcher.value == value.encode("utf-8", "replace").decode()
