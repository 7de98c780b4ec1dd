"""Bounds of the application: body, waiting, time; probes, metrics, OpenAPI, settings."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

from searchops_workers.gateway import commands
from searchops_workers.gateway.admission import Admission
from searchops_workers.gateway.app import build_app
from searchops_workers.gateway.bindings import Bindings
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.settings import EndpointSource, GatewaySettings, SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CLAIMS = {"access": [{"collection": "prod.m.acme", "access": "prw"}], "cell": "eu-1"}
TOKEN = jwt.encode(CLAIMS, "a-key-of-at-least-thirty-two-bytes!!", algorithm="HS256")


@asynccontextmanager
async def client(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(GatewaySettings.model_validate(settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://gateway",
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        ) as http,
    ):
        yield http


async def test_a_body_over_the_bound_is_413_whether_its_length_is_declared_or_not() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x" * 512

    async with client(max_body_bytes=1024) as http:
        declared = await http.put("/v1/tenants/m.acme/products", content=b"x" * 2048)
        streamed = await http.put("/v1/tenants/m.acme/products", content=pieces())
    for answer in (declared, streamed):
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:searchops:problem:body-too-large"


async def test_no_more_may_wait_than_the_bound_and_places_are_given_back() -> None:
    gate = Admission("searches", in_flight=1, waiting=1)
    leave = asyncio.Event()

    async def visit() -> None:
        async with gate.enter():
            await leave.wait()

    visitors = [asyncio.create_task(visit()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Problem) as refused:
        async with gate.enter():
            pass
    assert (refused.value.status, refused.value.retry_after) == (503, 1.0)
    leave.set()
    await asyncio.gather(*visitors)
    assert gate.present == 0
    async with gate.enter():
        assert gate.present == 1


async def test_a_cancelled_visitor_gives_its_place_back() -> None:
    gate = Admission("writes", in_flight=1, waiting=0)

    async def visit() -> None:
        async with gate.enter():
            await asyncio.Event().wait()

    visitor = asyncio.create_task(visit())
    await asyncio.sleep(0)
    visitor.cancel()
    await asyncio.gather(visitor, return_exceptions=True)
    assert gate.present == 0


async def test_probes_tell_whether_any_cell_is_known() -> None:
    async with client() as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
    async with client(cells={"eu-1": {"url": "http://cell:6333"}}, servers=("t:8001",)) as http:
        assert (await http.get("/readyz")).json() == {"ready": True, "cells": 1, "servers": 1}


async def test_every_answer_is_counted_by_route_and_status() -> None:
    async with client() as http:
        answer = await http.post("/v1/tenants/m.acme/search", json={"query": "x"})
        assert answer.json()["type"] == "urn:searchops:problem:unknown-cell"
        metrics = (await http.get("/metrics")).text
    assert 'searchops_gateway_requests_total{route="search",status="503"} 1.0' in metrics
    assert "acme" not in metrics


async def test_a_request_that_takes_too_long_is_504_and_a_failure_500_without_its_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("disk on fire")

    async with client(request_seconds=0.05) as http:
        for behaviour, status, code in ((hang, 504, "timeout"), (fail, 500, "internal")):
            monkeypatch.setattr(Bindings, "read", behaviour)
            answer = await http.post("/v1/tenants/m.acme/search", json={"query": "x"})
            assert (answer.status_code, answer.json()["type"]) == (status, f"urn:searchops:problem:{code}")
            assert "Retry-After" in answer.headers
            assert "disk on fire" not in answer.text
        metrics = (await http.get("/metrics")).text
    assert 'searchops_gateway_requests_in_flight{kind="search"} 0.0' in metrics


async def test_a_gateway_that_drains_is_not_ready() -> None:
    app = build_app(GatewaySettings.model_validate({"cells": {"eu-1": {"url": "http://cell:6333"}}}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as http:
        async with app.router.lifespan_context(app):
            assert (await http.get("/readyz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503


async def test_unknown_paths_and_methods_are_problems_too() -> None:
    async with client() as http:
        for answer, status in ((await http.get("/nope"), 404), (await http.get("/v1/tenants/m.acme/search"), 405)):
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"


async def test_the_openapi_document_is_whole_and_carries_the_bounds_in_force() -> None:
    async with client(max_limit=50, max_products=77) as http:
        document = (await http.get("/openapi.json")).json()
        page = (await http.get("/")).text
    text = json.dumps(document)
    assert "$ref" not in text
    search = document["paths"]["/v1/tenants/{tenant}/search"]["post"]
    schema = search["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["limit"]["maximum"] == 50
    assert '"maxItems": 77' in text
    assert set(document["paths"]) == {
        "/v1/tenants/{tenant}",
        "/v1/tenants/{tenant}/search",
        "/v1/tenants/{tenant}/products",
    }
    assert "/openapi.json" in page


def test_the_endpoints_file_is_read_again_when_it_changes_and_kept_when_it_breaks(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text('{"cells": {"eu-1": {"url": "http://a:1"}}, "pools": {"p": ["t:1", "t:2"]}}')
    source = EndpointSource(GatewaySettings(config=path, servers=("u:1",)))
    assert source.current().servers == ("u:1", "t:1", "t:2")
    path.write_text('{"cells": {"eu-1": {"url": "http://b:1", "grpcPort": 6334}}}')
    os.utime(path, ns=(1, 1))
    assert source.current().cells["eu-1"].url == "http://b:1"
    path.write_text("{broken")
    os.utime(path, ns=(2, 2))
    assert source.current().cells["eu-1"].grpc_port == 6334


def test_an_unreadable_endpoints_file_at_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.json"):
        EndpointSource(GatewaySettings(config=tmp_path / "missing.json"))


def test_a_bad_setting_ends_the_command_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEARCHOPS_GATEWAY_MAX_BATCH", "0")
    assert commands.serve() == commands.EXIT_SETTINGS
    assert "SEARCHOPS_GATEWAY_MAX_BATCH" in capsys.readouterr().err
