"""Bindings are read once for many, kept for seconds and by token; what a cell answers becomes one problem each."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from qdrant_client.http.exceptions import UnexpectedResponse
from structlog.testing import capture_logs

from searchops.api.retrieval import BINDING_KEY, Binding, RetrievalProfile
from searchops.api.shared import KEY_SHARED, record_key
from searchops_workers.gateway import bindings as module
from searchops_workers.gateway.bindings import Bindings
from searchops_workers.gateway.callers import Caller
from searchops_workers.gateway.cells import Cells, Gone, WrongSpace
from searchops_workers.gateway.limits import CellFull
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.settings import EndpointSource, GatewaySettings
from searchops_workers.gateway.shared import CellAccess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOUND = Binding(profile=RetrievalProfile(name="plain")).to_metadata()


def caller(token: str = "one", name: str = "acme") -> Caller:  # noqa: S107 - no secret
    return Caller(f"m.{name}", f"prod.m.{name}", "eu-1", {f"prod.m.{name}": "r"}, token)


class FakeCells:
    """A labelled double of the cells: every collection is bound alike, and each reading is noted."""

    def __init__(self) -> None:
        self.read: list[tuple[str, str]] = []
        self.metadata = {BINDING_KEY: BOUND}
        self.now = 0.0

    @asynccontextmanager
    async def calling(self, who: Caller) -> AsyncIterator[Any]:
        async def get_collection(alias: str) -> Any:
            self.read.append((alias, who.token))
            await asyncio.sleep(0)
            return SimpleNamespace(config=SimpleNamespace(metadata=self.metadata), points_count=1)

        yield SimpleNamespace(get_collection=get_collection)

    def bindings(self, seconds: float = 2.0) -> Bindings:
        return Bindings(cast("Cells", self), seconds=seconds, clock=lambda: self.now)


async def test_a_binding_is_used_for_its_seconds_and_no_longer() -> None:
    cells = FakeCells()
    known = cells.bindings()
    await known.read(caller())
    cells.now = 1.9
    await known.read(caller())
    assert len(cells.read) == 1
    cells.now = 2.0
    await known.read(caller())
    await known.read(caller(), fresh=True)
    assert len(cells.read) == 3


async def test_many_who_ask_at_once_are_one_reading_and_another_token_is_another() -> None:
    cells = FakeCells()
    known = cells.bindings()
    await asyncio.gather(*(known.read(caller()) for _ in range(20)), *(known.read(caller("two")) for _ in range(20)))
    assert sorted(cells.read) == [("prod.m.acme", "one"), ("prod.m.acme", "two")]


async def test_no_number_of_tenants_grows_the_cache_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHED", 3)
    cells = FakeCells()
    known = cells.bindings()
    for number in range(5):
        await known.read(caller(name=f"t{number}"))
    for number in (4, 3, 2):
        await known.read(caller(name=f"t{number}"))
    assert len(cells.read) == 5, "the newest are kept"
    await known.read(caller(name="t0"))
    assert cells.read[-1] == ("prod.m.t0", "one"), "the oldest was let go"


@pytest.mark.parametrize(
    ("seen", "body", "status", "code", "kind"),
    [
        (400, "Not existing vector name error: d-1", 503, "wrong-space", WrongSpace),
        (400, "wrong filter", 422, "refused", Problem),
        (401, "no", 401, "bad-credentials", Problem),
        (403, "no", 403, "forbidden", Problem),
        (404, "no such collection", 404, "no-collection", Gone),
        (400, 'Wrong input: Shard key \\"slice-0001\\" not found', 404, "no-collection", Gone),
        (400, "Max points count limit of 9 reached!", 422, "quota-exceeded", Problem),
        (413, "too much", 413, "body-too-large", Problem),
        (507, "too much", 507, "cell-full", CellFull),
        (500, "No space left on device: WAL buffer", 507, "cell-full", CellFull),
        (422, "no", 422, "refused", Problem),
        (429, "slow down", 429, "rate-limited", Problem),
        (500, "panic", 503, "cell-failing", Problem),
    ],
)
async def test_what_a_cell_answers_is_a_problem_that_says_what_it_said_and_never_the_token(
    seen: int, body: str, status: int, code: str, kind: type[Problem]
) -> None:
    cells = Cells(EndpointSource(GatewaySettings.model_validate({"cells": {"eu-1": {"url": "http://c:1"}}})), timeout=1)
    headers = httpx.Headers({"Retry-After": "7"})
    with pytest.raises(Problem) as raised:
        async with cells.calling(caller("a-secret-token")):
            raise UnexpectedResponse(seen, "reason", body.encode(), headers)
    await cells.close()
    problem = raised.value
    assert (problem.status, problem.code, type(problem)) == (status, code, kind)
    assert body in problem.detail
    assert "a-secret-token" not in problem.detail
    if seen == 429 or code == "cell-failing":
        assert problem.retry_after == 7.0


@pytest.mark.parametrize(
    ("seen", "status", "code", "words"),
    [
        (401, 503, "credential-refused", "this gateway's own credential"),
        (403, 503, "credential-refused", "this gateway's own credential"),
        (404, 404, "no-collection", "no collection"),
        (429, 429, "rate-limited", "a limit of the shared collection"),
        (507, 507, "cell-full", "which is no quota of the tenant"),
    ],
)
async def test_what_a_cell_says_of_the_gateways_own_credential_is_not_said_of_the_caller(
    seen: int, status: int, code: str, words: str
) -> None:
    cells = Cells(EndpointSource(GatewaySettings.model_validate({"cells": {"eu-1": {"url": "http://c:1"}}})), timeout=1)
    with pytest.raises(Problem, match=words) as raised:
        async with cells.calling(CellAccess("eu-1", "the-gateways-token")):
            raise UnexpectedResponse(seen, "reason", b"said", httpx.Headers({}))
    await cells.close()
    assert (raised.value.status, raised.value.code) == (status, code)
    assert "the-gateways-token" not in raised.value.detail


@pytest.mark.parametrize("mark", [{KEY_SHARED: "Shared"}, {record_key("uid-1"): "{}"}])
async def test_a_token_whose_alias_points_to_a_shared_collection_is_refused_and_that_is_an_error_in_the_log(
    mark: dict[str, str],
) -> None:
    cells = FakeCells()
    cells.metadata |= mark
    with capture_logs() as logs, pytest.raises(Problem) as raised:
        await cells.bindings().read(caller())
    assert (raised.value.status, raised.value.code) == (403, "shared-collection")
    assert [(entry["log_level"], entry["alias"]) for entry in logs] == [("error", "prod.m.acme")]
