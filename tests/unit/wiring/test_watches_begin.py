"""The start of the watches: a process that would wait for ever ends instead."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import kopf

from searchops.wiring.watches import NothingKept, all_set

if TYPE_CHECKING:
    import pytest


async def _fail() -> None:
    raise RuntimeError("no way to log in")


async def _serve() -> None:
    await asyncio.Event().wait()


async def test_a_watch_that_fails_ends_the_wait_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    flags = [asyncio.Event(), asyncio.Event()]
    watches = [asyncio.create_task(_fail()), asyncio.create_task(_serve())]
    with caplog.at_level(logging.CRITICAL):
        assert not await all_set(flags, watches)
    assert "no way to log in" in caplog.text
    watches[1].cancel()


async def test_both_flags_are_waited_for() -> None:
    flags = [asyncio.Event(), asyncio.Event()]
    watches = [asyncio.create_task(_serve())]
    waiting = asyncio.create_task(all_set(flags, watches))
    flags[0].set()
    await asyncio.sleep(0)
    assert not waiting.done()
    flags[1].set()
    assert await waiting
    watches[0].cancel()


class Uncopied(dict[str, Any]):
    """Part of an object that must not be copied."""

    def __deepcopy__(self, memo: object) -> Uncopied:
        raise AssertionError("kopf copies the object at every event")


def test_an_event_is_not_copied_for_change_handlers_that_nobody_has() -> None:
    body = kopf.Body({"metadata": {"name": "acme"}, "spec": Uncopied(fields=[])})
    kept = NothingKept()
    assert kept.build(body=body) == {}
    assert kept.fetch(body=body) is None
