"""Fixtures for tests on the real parts; each starts once a session, and only where a test asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from searchops_sandbox.control_plane import ControlPlane
from searchops_sandbox.process_runner import RunnerProcess
from searchops_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

_LOG_LINES = 15


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane() -> AsyncIterator[ControlPlane]:
    """A real API server with etcd and the controller manager; no Pod runs in it.

    Its parts are processes on loopback: tests in another event loop use it by its URLs and files alike. Only what stops
    and starts them belongs to the session's loop (``pytest.mark.asyncio(loop_scope="session")``).
    """
    async with ControlPlane() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> AsyncIterator[Sandbox]:
    """Everything: control plane, process runner, two Qdrant cells, two Triton pools; cells and pools registered."""
    async with Sandbox() as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of the logs that matter to the report of a failed test."""
    report = yield
    if report.when in {"setup", "call"} and report.failed:
        used: dict[str, Any] = getattr(item, "funcargs", {})
        for name, part in used.items():
            if isinstance(part, ControlPlane | RunnerProcess | Sandbox):
                report.sections.append((f"logs of {name}", part.tail(_LOG_LINES)))
    return report
