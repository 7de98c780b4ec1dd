"""Probes and metrics as a kubelet and Prometheus ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from searchops.telemetry.serving import serve
from searchops_sandbox.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping


async def test_live_at_once_ready_once_the_caches_are_full() -> None:
    missing: Mapping[str, int | None] | None = {"searchtenants": 3, "reindexjobs": None}
    port = free_port()
    runner = await serve((port, port), missing=lambda: missing, exposition=lambda: b"searchops_leader 1.0\n")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/healthz")).status_code == 200
            waiting = await client.get("/readyz")
            assert (waiting.status_code, "'searchtenants': 3" in waiting.text) == (503, True)
            missing = None
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/metrics")).text == "searchops_leader 1.0\n"
    finally:
        await runner.cleanup()
