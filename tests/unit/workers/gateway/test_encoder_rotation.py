"""Encoders over several servers: the next one where one fails, and a pause for what does not answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from searchops.api.retrieval import Binding, RetrievalProfile
from searchops_workers.encoders.errors import EncoderRefused, EncoderUnavailable, ModelNotLoaded
from searchops_workers.gateway.encoders import COOL_DOWN, SLOW_SECONDS, TritonEncoders
from searchops_workers.gateway.settings import EndpointSource, GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from searchops_workers.encoders.protocol import Vectors

SERVERS = ("one:1", "two:1")


def bound(dimension: int = 2) -> Binding:
    return Binding(
        profile=RetrievalProfile(name="plain"),
        encoder="shop-r1",
        vector="d-1",
        dimension=dimension,
        manifest_digest="sha256:abc",
    )


class Member:
    dimension = 2
    max_tokens = 8

    def __init__(self, fleet: Fleet, url: str) -> None:
        self.fleet, self.url, self.closed = fleet, url, False

    async def encode(self, texts: Sequence[str]) -> Vectors:
        self.fleet.asked.append(self.url)
        if self.url in self.fleet.hung:
            await asyncio.Event().wait()
        if self.url in self.fleet.down:
            raise EncoderUnavailable(f"{self.url} is down")
        return np.ones((len(texts), 2), dtype=np.float32)

    async def close(self) -> None:
        self.closed = True


class Fleet:
    """Servers as the encoders see them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.down: set[str] = set()
        self.hung: set[str] = set()
        self.unloaded: set[str] = set()
        self.asked: list[str] = []
        self.connected: list[tuple[str, str, str | None]] = []
        self.members: list[Member] = []
        settings = GatewaySettings(servers=SERVERS)
        self.encoders = TritonEncoders(EndpointSource(settings), clock=lambda: self.now, connect=self.connect)

    async def connect(self, url: str, model: str, manifest_digest: str | None) -> Member:
        self.connected.append((url, model, manifest_digest))
        if url in self.unloaded:
            raise ModelNotLoaded(f"{url} does not serve {model}")
        self.members.append(Member(self, url))
        return self.members[-1]


async def test_servers_take_turns_and_connect_once_to_the_bound_build() -> None:
    fleet = Fleet()
    for _ in range(4):
        assert await fleet.encoders.encode(bound(), ["a", "b"]) == [[1.0, 1.0], [1.0, 1.0]]
    assert sorted(fleet.asked) == ["one:1", "one:1", "two:1", "two:1"]
    assert sorted(fleet.connected) == [(url, "shop-r1", "sha256:abc") for url in sorted(SERVERS)]


async def test_a_server_that_fails_is_passed_over_and_asked_again_after_a_pause() -> None:
    fleet = Fleet()
    fleet.down = {"one:1"}
    for _ in range(4):
        await fleet.encoders.encode(bound(), ["a"])
    assert fleet.asked.count("one:1") == 1
    fleet.down = set()
    fleet.now += COOL_DOWN
    for _ in range(2):
        await fleet.encoders.encode(bound(), ["a"])
    assert fleet.asked.count("one:1") == 2


async def test_where_no_server_answers_the_last_cause_is_told_and_then_nothing_is_asked() -> None:
    fleet = Fleet()
    fleet.unloaded = set(SERVERS)
    with pytest.raises(ModelNotLoaded, match="does not serve shop-r1"):
        await fleet.encoders.encode(bound(), ["a"])
    with pytest.raises(EncoderUnavailable, match="no server of 2 serves shop-r1"):
        await fleet.encoders.encode(bound(), ["a"])
    assert len(fleet.connected) == 2


async def test_a_server_that_hangs_holds_up_only_those_who_ask_it_and_is_then_passed_over() -> None:
    fleet = Fleet()
    fleet.hung = {"one:1"}
    first = asyncio.create_task(fleet.encoders.encode(bound(), ["a"]))
    second = asyncio.create_task(fleet.encoders.encode(bound(), ["a"]))
    done, waiting = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == len(waiting) == 1
    fleet.now += SLOW_SECONDS
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for _ in range(2):
        await fleet.encoders.encode(bound(), ["a"])
    assert fleet.asked.count("one:1") == 1
    assert fleet.asked.count("two:1") == 3


async def test_a_model_of_another_dimension_is_refused() -> None:
    with pytest.raises(EncoderRefused, match="2 dimensions, the binding wants 3"):
        await Fleet().encoders.encode(bound(dimension=3), ["a"])


async def test_closing_closes_what_was_opened() -> None:
    fleet = Fleet()
    await fleet.encoders.encode(bound(), ["a"])
    await fleet.encoders.close()
    assert [member.closed for member in fleet.members] == [True]
