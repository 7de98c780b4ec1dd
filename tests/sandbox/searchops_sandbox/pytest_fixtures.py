"""Fixtures for tests on the real parts; each starts once a session, and only where a test asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from searchops_sandbox.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane() -> AsyncIterator[ControlPlane]:
    """A real API server with etcd and the controller manager; no Pod runs in it.

    Its parts are processes on loopback: tests in another event loop use it by its URLs and files alike.
    """
    async with ControlPlane() as started:
        yield started
