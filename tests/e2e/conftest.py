"""One platform for every end-to-end test that does not need its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio

from searchops_sandbox.audit import spec_writes
from searchops_sandbox.demo.buckets import EXAMPLES
from searchops_sandbox.demo.platform import Platform
from searchops_sandbox.fleet import MERCHANTS, Fleet, tenant_manifest, unpromoted_model
from searchops_sandbox.leaks import leaks
from searchops_sandbox.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

SWEEP_MINUTES = "0.05"
RESYNC_MINUTES = "0.25"
ACCESS_SECONDS = "1"
CANARY_MINUTES = "0.1"
LINE_LENGTH = 400
CONTROL = "searchtenants merchants-e2e/audit-control"
"""Whose spec a test writes with the operator's token, to prove that it would be found."""


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """At its end every platform is searched for keys and tokens: objects, events, metrics, logs, artifacts.

    And its API server's audit log for a field of spec that the operator wrote.
    """
    found: list[str] = []
    written: list[str] = []
    scanned: list[Platform] = []
    close = Platform.close

    async def scan_and_close(self: Platform) -> None:
        if self not in scanned:
            scanned.append(self)
            found.extend(await leaks(self.sandbox, pages=self.pages, seen=self.secrets_seen))
            written.extend(line for line in spec_writes(self.sandbox.control_plane.audit_log) if CONTROL not in line)
        await close(self)

    Platform.close = scan_and_close  # type: ignore[method-assign]
    try:
        yield
    finally:
        Platform.close = close  # type: ignore[method-assign]
    assert found == []
    assert written == [], "spec belongs to people and to Git: Argo CD would see a difference that nobody committed"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def fleet() -> AsyncIterator[Fleet]:
    """A running platform with an empty namespace of merchants."""
    environment = {
        "SEARCHOPS_CELL_SWEEP_MINUTES": SWEEP_MINUTES,
        "SEARCHOPS_RESYNC_MINUTES": RESYNC_MINUTES,
        "SEARCHOPS_BACKUP_SPREAD_MINUTES": "0",
        "SEARCHOPS_BACKUP_ROUND_SECONDS": "1",
        "SEARCHOPS_TENANT_RESYNC_MINUTES": RESYNC_MINUTES,
        "SEARCHOPS_CELL_ACCESS_SECONDS": ACCESS_SECONDS,
        "SEARCHOPS_ISOLATION_CANARY_MINUTES": CANARY_MINUTES,
    }
    platform = Platform(Sandbox(), environment=environment)
    timeout = aiohttp.ClientTimeout(total=60)
    async with platform, aiohttp.ClientSession(timeout=timeout) as session:
        started = Fleet(platform, session)
        await started.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MERCHANTS}})
        await platform.apply(platform.buckets.localise((EXAMPLES / "platform.yaml").read_text()))
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def merchants(fleet: Fleet) -> tuple[str, str, str]:
    """Three merchants with products: two on one cell, the third on the other; no model has been promoted."""
    names = ("alpha", "beta", "gamma")
    regions = ("eu", "eu", "us")
    await fleet.apply(
        unpromoted_model(), *(tenant_manifest(name, region=region) for name, region in zip(names, regions, strict=True))
    )
    for name in names:
        await fleet.condition("searchtenants", name, "Ready", "True")
        status, answer = await fleet.index(name)
        assert status == 200, answer
    return names


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of the logs that matter to the report of a failed test."""
    report = yield
    fleet = getattr(item, "funcargs", {}).get("fleet")
    if report.failed and isinstance(fleet, Fleet):
        lines = (line[:LINE_LENGTH] for line in fleet.platform.tail().splitlines())
        report.sections.append(("logs of the platform", "\n".join(lines)))
    return report
