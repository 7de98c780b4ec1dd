"""Probes and the isolation canary on the wire: an answer that was lost, late, halved or no answer at all says nothing.

A canary that took silence for a refusal would call tenants isolated that nobody has tried; one that took it for an
open door would take a cell off the network.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from contract.wire import HOWS, Wire
from searchops.adapters.access_probes import AccessProbes
from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import AccessSecretState, CanaryResult, CellRegistration, Trial
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.isolation_canary import IsolationCanary
from searchops.planning.names import ACCESS_SECRET_TYPE, CELL_ANNOTATION
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Transient
from searchops.runtime.key import Key
from searchops_sandbox.ports import free_port
from searchops_sandbox.qdrant.cell import QdrantCell
from unit.controllers.fakes_faults import Faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from contract.wire import How
    from searchops.api.observed import CollectionState
    from unit.controllers.fakes_faults import When

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "probe-faults-key-of-at-least-32-characters"
PERIOD = 600.0
ALPHA, BETA = Key("shop", "alpha"), Key("shop", "beta")


class Gateway:
    """A gateway in one handler: a tenant's own token opens it, any other is refused, or none where it is leaky."""

    def __init__(self) -> None:
        self.port = free_port()
        self.leaky = False
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/tenants/{tenant}/search", self._search)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _search(self, request: web.Request) -> web.Response:
        import jwt

        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, KEY, algorithms=["HS256"])
        own = claims["access"][0]["collection"].endswith(request.match_info["tenant"])
        return web.json_response({"hits": [{"id": "a"}] * 20}, status=200 if own or self.leaky else 403)


class Scene:
    """Two tenants on one cell, the ways to them over two wires, and a canary."""

    def __init__(self, double: QdrantCell, gateway: Gateway) -> None:
        self.cell_wire, self.gateway_wire = Wire(double.rest_url), Wire(f"http://127.0.0.1:{gateway.port}")
        url = f"http://127.0.0.1:{self.cell_wire.port}"
        self.cell = CellRegistration("eu-1", {}, (url,), None, 100, api_key=KEY)
        self.probes = AccessProbes(timeout=0.8)
        self.now = time.time()
        self.faults = Faults()
        self.told: list[tuple[str, str]] = []
        self.breaches = 0
        self.visits: Counter[str] = Counter()
        self.cache: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.prefix = f"prod{uuid.uuid4().hex[:6]}"
        for key in (ALPHA, BETA):
            self.cache.apply("ADDED", self._tenant(key))
        self.canary = IsolationCanary(
            period=PERIOD,
            gateway_url=f"http://127.0.0.1:{self.gateway_wire.port}",
            directory=self,  # type: ignore[arg-type]
            cells=self,
            secrets=self,  # type: ignore[arg-type]
            trials=self.probes,
            tenants=self.cache,
            wake=lambda key: None,
            events=self,
            metrics=self,
            wall=lambda: self.now,
        )

    def alias(self, key: Key) -> str:
        return f"{self.prefix}.{key.namespace}.{key.name}"

    def token(self, key: Key) -> str:
        claims = {"exp": int(time.time()) + 600, "access": [{"collection": self.alias(key), "access": "r"}]}
        return CellKeySigner().sign(self.cell, claims)

    def _tenant(self, key: Key) -> dict[str, Any]:
        metadata = {"name": key.name, "namespace": key.namespace, "uid": f"uid-{key.name}", "resourceVersion": "1"}
        entry = {"name": "storefront", "role": "Search", "secretName": f"{key.name}-storefront"}
        return {
            "metadata": {**metadata, "annotations": {CELL_ANNOTATION: "eu-1"}},
            "spec": {"access": [entry]},
            "status": {"alias": self.alias(key)},
        }

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        raise AssertionError(f"{collection} on {cell.name} is nobody's slice")

    def cells(self) -> Mapping[str, CellRegistration]:
        return {"eu-1": self.cell}

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        owner = Key(namespace, name.partition("-")[0])
        found = AccessSecretState(name, ACCESS_SECRET_TYPE, f"uid-{owner.name}", "", "", self.token(owner))
        return self.faults.through(f"read {name}", lambda: found)

    def record(self, reference: Mapping[str, str], reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append((reference["name"], reason))

    def isolation_broken(self) -> None:
        self.breaches += 1

    def visited(self, outcome: str) -> None:
        self.visits[outcome] += 1

    async def turns(self, count: int) -> None:
        """So many periods, each of which visits both tenants."""
        await self.canary.run_once()
        for _ in range(count):
            self.now += PERIOD
            await self.canary.run_once()

    async def ask(self, method: str, path: str, body: Any = None) -> None:
        async with httpx.AsyncClient(base_url=self.cell_wire.upstream, headers={"api-key": KEY}) as client:
            (await client.request(method, path, json=body)).raise_for_status()

    async def __aenter__(self) -> Scene:
        await self.cell_wire.start()
        await self.gateway_wire.start()
        for key in (ALPHA, BETA):
            await self.ask("PUT", f"/collections/{self.alias(key)}", {"vectors": {}})
        return self

    async def __aexit__(self, *error: object) -> None:
        for key in (ALPHA, BETA):
            await self.ask("DELETE", f"/collections/{self.alias(key)}")
        await self.probes.close()
        await self.cell_wire.stop()
        await self.gateway_wire.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def double(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QdrantCell]:
    cell = QdrantCell("probes", folder=tmp_path_factory.mktemp("cell"), api_key=KEY)
    await cell.start()
    yield cell
    await cell.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("how", HOWS)
async def test_a_lost_answer_is_neither_a_success_nor_a_refusal_and_the_next_one_counts(
    double: QdrantCell, gateway: Gateway, how: How
) -> None:
    async with Scene(double, gateway) as scene:
        (url,), probes = scene.cell.urls, scene.probes
        own, foreign = scene.alias(ALPHA), scene.alias(BETA)
        door = f"http://127.0.0.1:{scene.gateway_wire.port}"
        asked: list[tuple[Any, Any, Any]] = []
        for wire, unknown, question in (
            (scene.cell_wire, None, lambda: probes.accepts(scene.cell, url, KEY)),
            (scene.cell_wire, None, lambda: probes.accepts(scene.cell, url, "x" * 40)),
            (scene.cell_wire, Trial.UNKNOWN, lambda: probes.at_cell(scene.cell, own, scene.token(ALPHA))),
            (scene.cell_wire, Trial.UNKNOWN, lambda: probes.at_cell(scene.cell, foreign, scene.token(ALPHA))),
            (scene.gateway_wire, Trial.UNKNOWN, lambda: probes.at_gateway(door, "shop.alpha", scene.token(ALPHA))),
            (scene.gateway_wire, Trial.UNKNOWN, lambda: probes.at_gateway(door, "shop.beta", scene.token(ALPHA))),
        ):
            wire.fault = (len(wire.calls), how)
            asked.append((await question(), unknown, await question()))
        assert [(first, unknown) for first, unknown, _ in asked] == [(unknown, unknown) for _, unknown, _ in asked]
        assert [answer for _, _, answer in asked] == [
            True,
            False,
            Trial.OPENED,
            Trial.REFUSED,
            Trial.OPENED,
            Trial.REFUSED,
        ]


async def test_no_proxy_of_the_environment_is_shown_a_credential(
    double: QdrantCell, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 502 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    port = free_port()
    async with Scene(double, gateway) as scene, await asyncio.start_server(proxy, "127.0.0.1", port):
        door, token = f"http://127.0.0.1:{scene.gateway_wire.port}", scene.token(ALPHA)
        with monkeypatch.context() as environment:
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                for spelt in (name, name.upper()):
                    environment.setenv(spelt, f"http://127.0.0.1:{port}")
            for name in ("no_proxy", "NO_PROXY"):
                environment.delenv(name, raising=False)
            async with httpx.AsyncClient() as trusting:
                assert (await trusting.get(f"{door}/trusting")).status_code == 502
            assert await scene.probes.accepts(scene.cell, scene.cell.urls[0], KEY) is True
            assert await scene.probes.at_cell(scene.cell, scene.alias(ALPHA), token) is Trial.OPENED
            assert await scene.probes.at_gateway(door, "shop.alpha", token) is Trial.OPENED
        assert shown == [f"GET {door}/trusting HTTP/1.1\r\n".encode()], "who trusts the environment alone asks it"


@pytest.mark.parametrize("how", ["reset-before", "reset-after", "half-after", "late-after"])
async def test_the_next_node_is_asked_where_one_gives_no_whole_answer(
    double: QdrantCell, gateway: Gateway, how: How
) -> None:
    async with Scene(double, gateway) as scene:
        two = replace(scene.cell, urls=(*scene.cell.urls, double.rest_url))
        scene.cell_wire.fault = (0, how)
        assert await scene.probes.at_cell(two, scene.alias(BETA), scene.token(ALPHA)) is Trial.REFUSED
        assert len(scene.cell_wire.calls) == 1


@pytest.mark.parametrize("how", HOWS)
async def test_whichever_call_of_the_canary_fails_it_ends_at_held_and_calls_nobody_broken(
    double: QdrantCell, gateway: Gateway, how: How
) -> None:
    async with Scene(double, gateway) as plain:
        await plain.turns(1)
        assert (plain.visits, plain.told) == (Counter(held=2), [])
        calls = len(plain.cell_wire.calls), len(plain.gateway_wire.calls)
    assert calls == (4, 2)
    for name, count in zip(("cell_wire", "gateway_wire"), calls, strict=True):
        for at in range(count):
            async with Scene(double, gateway) as scene:
                getattr(scene, name).fault = (at, how)
                await scene.turns(1)
                assert scene.visits == Counter(held=1, unknown=1), f"{name} call {at} failed {how}"
                await scene.turns(1)
                assert [scene.canary.result(key) for key in (ALPHA, BETA)] == [CanaryResult(), CanaryResult()]
                assert (scene.told, scene.breaches) == ([], 0)


@pytest.mark.parametrize("how", HOWS)
async def test_whichever_call_fails_a_breach_is_told_once_to_both_and_ends_when_the_same_try_is_refused(
    double: QdrantCell, gateway: Gateway, how: How
) -> None:
    gateway.leaky = True
    for at in range(2):
        async with Scene(double, gateway) as scene:
            gateway.leaky = True
            scene.gateway_wire.fault = (at, how)
            await scene.turns(3)
            pairs = {name for name, _ in scene.told}
            assert (pairs, {reason for _, reason in scene.told}) == ({"alpha", "beta"}, {"IsolationBroken"})
            assert len(scene.told) == 2 * scene.breaches == 4, "each direction once, to both"
            assert all(found is not None and found.broken for found in map(scene.canary.result, (ALPHA, BETA)))
            gateway.leaky = False
            scene.gateway_wire.fault = (len(scene.gateway_wire.calls), how)
            await scene.turns(2)
            assert [scene.canary.result(key) for key in (ALPHA, BETA)] == [CanaryResult(), CanaryResult()]
            assert (len(scene.told), scene.breaches) == (4, 2), "nothing is told twice"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_secret_that_cannot_be_read_proves_nothing_and_tries_nothing(
    double: QdrantCell, gateway: Gateway, when: When
) -> None:
    async with Scene(double, gateway) as scene:
        scene.faults = Faults(0, when)
        await scene.turns(1)
        assert scene.visits == Counter(held=1, unknown=1)
        assert (len(scene.cell_wire.calls), len(scene.gateway_wire.calls)) == (2, 1)
        await scene.turns(1)
        assert [scene.canary.result(key) for key in (ALPHA, BETA)] == [CanaryResult(), CanaryResult()]
        with pytest.raises(Transient):
            scene.faults = Faults(0, when)
            await scene.read("shop", "alpha-storefront")
