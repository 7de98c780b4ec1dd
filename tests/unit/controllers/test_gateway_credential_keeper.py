"""The keeper of the gateway's credentials: what it tells tenants, and when, whatever fails around it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from searchops.adapters.tokens import CellKeySigner
from searchops.api.observed import CellIdentity, CellRegistration, CellState
from searchops.api.shared import GatewayCredentials, HeldCredentials, Notes
from searchops.api.v1alpha1 import SearchTenant
from searchops.controllers.gateway_credentials import PAUSE_SECONDS, GatewayCredentialKeeper
from searchops.planning.gateway_credentials import CredentialSettings
from searchops.runtime.cache import ObjectCache
from searchops.runtime.errors import Conflict, Terminal, Transient
from searchops.runtime.key import Key
from unit.controllers.fakes_api_server import FakeApiServer
from unit.controllers.fakes_faults import Faults
from unit.controllers.fakes_tenant_world import FakeDirectory, FakeKeys

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
COLLECTION = "prod@shared-0a1b2c3d-0"
KEY = "first-key-of-the-fleets-gateway-of-32-bytes"


class Secret:
    """The gateway's Secret, which may be unreadable or change under one's hands."""

    def __init__(self) -> None:
        self.held: HeldCredentials | None = None
        self.error: Exception | None = None
        self.writes = 0

    async def read(self) -> HeldCredentials | None:
        if self.error is not None:
            raise self.error
        return self.held

    async def write(self, credentials: GatewayCredentials, notes: Notes) -> None:
        self.writes += 1
        if self.error is not None:
            raise self.error
        self.held = HeldCredentials(credentials, notes)


class Scene:
    def __init__(self) -> None:
        self.secret = Secret()
        self.directory = FakeDirectory("eu-1")
        self.api = FakeApiServer(Faults(None, "before"))
        self.tenants: ObjectCache[SearchTenant] = ObjectCache("searchtenants", SearchTenant.model_validate)
        self.api.serve(self.tenants)
        self.shared = frozenset({COLLECTION})
        self.silent = False
        self.asked_after_key: list[str | None] = []
        self.woken: list[Key] = []
        self.protected: list[str] = []
        self.made = 0
        self.keeper = self.start()

    def start(self) -> GatewayCredentialKeeper:
        self.keeper = GatewayCredentialKeeper(
            CredentialSettings("prod", timedelta(days=30), revocable=True),
            secret=self.secret,
            directory=self.directory,
            cells=self,  # type: ignore[arg-type]
            objects=self.api,
            keys=FakeKeys(),
            signer=CellKeySigner(),
            tenants=self.tenants,
            wake=self.woken.append,
            clock=lambda: NOW,
            new_key=self.new_key,
            protect=lambda *secrets: self.protected.extend(secrets),
        )
        return self.keeper

    def new_key(self) -> str:
        self.made += 1
        return f"{KEY}-{self.made}"

    async def survey(self, cell: CellRegistration) -> CellState:
        self.asked_after_key.append(self.keeper.key())
        state = CellState(cell, True, "", CellIdentity("prod", "eu-1", await self.api.cluster_uid()), self.shared)
        return replace(state, shared=self.shared, reachable=not self.silent)

    def tenant(self, isolation: str = "Shared") -> None:
        metadata = {"name": "acme", "namespace": "shop", "uid": "uid-1"}
        spec: dict[str, Any] = {"model": {"name": "enc"}, "isolation": isolation}
        self.api.put("searchtenants", {"metadata": metadata, "spec": spec})
        self.api.deliver()


async def test_where_nobody_shares_nothing_is_made() -> None:
    scene = Scene()
    scene.shared = frozenset()
    scene.tenant("Collection")
    assert await scene.keeper.run_once()
    assert (scene.secret.held, scene.secret.writes, scene.keeper.key()) == (None, 0, None)


async def test_the_first_round_makes_a_key_and_a_token_and_wakes_who_waits_for_it() -> None:
    scene = Scene()
    scene.tenant()
    assert scene.keeper.key() is None
    assert await scene.keeper.run_once()
    assert scene.secret.held is not None
    credentials = scene.secret.held.credentials
    assert (scene.keeper.key(), scene.woken) == (credentials.keys[0], [Key("shop", "acme")])
    assert credentials.cells["eu-1"].collections == (COLLECTION,)
    assert {*credentials.keys, credentials.cells["eu-1"].token} <= set(scene.protected), "never let out in a message"
    assert await scene.keeper.run_once()
    assert (scene.secret.writes, scene.woken) == (1, [Key("shop", "acme")]), "a second round changes nothing"


async def test_after_a_restart_the_key_is_known_before_any_cell_has_answered() -> None:
    scene = Scene()
    scene.tenant()
    await scene.keeper.run_once()
    assert scene.secret.held is not None
    key = scene.secret.held.credentials.keys[0]
    scene.start()
    scene.silent, scene.asked_after_key = True, []
    assert await scene.keeper.run_once()
    assert scene.asked_after_key == [key]
    assert (scene.secret.writes, scene.keeper.key()) == (1, key), "a silent cell's token stays"


@pytest.mark.parametrize(
    "error", [Transient("no answer"), Conflict("changed"), Terminal("SecretConflict", "another's")]
)
async def test_what_fails_takes_no_key_away_and_is_tried_again(error: Exception) -> None:
    scene = Scene()
    scene.tenant()
    await scene.keeper.run_once()
    key = scene.keeper.key()
    scene.secret.error = error
    assert await scene.keeper.run_once() is False
    assert scene.keeper.key() == key
    scene.secret.error = None
    scene.shared = frozenset({COLLECTION, "prod@shared-0a1b2c3d-1"})
    assert await scene.keeper.run_once()
    assert scene.secret.held is not None
    assert set(scene.secret.held.credentials.cells["eu-1"].collections) == scene.shared


async def test_a_write_whose_answer_was_lost_leaves_one_key() -> None:
    scene = Scene()
    scene.tenant()
    write = scene.secret.write

    async def lost(credentials: GatewayCredentials, notes: Notes) -> None:
        await write(credentials, notes)
        raise Transient("the answer was lost")

    scene.secret.write = lost  # type: ignore[method-assign]
    assert await scene.keeper.run_once() is False
    assert scene.keeper.key() is None, "what may not be there signs nothing"
    scene.secret.write = write  # type: ignore[method-assign]
    assert await scene.keeper.run_once()
    assert scene.secret.held is not None
    assert scene.secret.held.credentials.keys == (scene.keeper.key(),)
    assert scene.secret.writes == 1


async def test_a_burst_that_asks_at_every_pass_makes_one_round_and_the_next_after_its_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    rounds, asked_at = 0, 3
    enough = asyncio.Event()

    async def once() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == asked_at:
            enough.set()
        return True

    pauses: list[float] = []
    sleep = asyncio.sleep

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(scene.keeper, "run_once", once)
    monkeypatch.setattr(asyncio, "sleep", paused)
    running = asyncio.create_task(scene.keeper.run())
    while not enough.is_set():
        scene.keeper.key()  # not known yet: each of these asks for a round
        await sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert pauses == [PAUSE_SECONDS] * (asked_at - 1)
