"""`searchops-worker gateway` as a process: ready, answering, and gone after SIGTERM with requests finished."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import httpx

from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_command_serves_until_sigterm(tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "SEARCHOPS_GATEWAY_HOST": "127.0.0.1",
        "SEARCHOPS_GATEWAY_PORT": str(port),
        "SEARCHOPS_GATEWAY_CELLS": json.dumps({"eu-1": {"url": f"http://127.0.0.1:{free_port()}"}}),
    }
    argv = [sys.executable, "-m", "searchops_workers.cli", "gateway"]
    process = ManagedProcess("gateway", argv, log=tmp_path / "gateway.log", env=environment)
    await process.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5.0) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.HTTPError:
                    return False

            await process.wait_until(ready, timeout=60.0)
            answer = await http.post("/v1/tenants/m.acme/search", json={"query": "x"})
            assert answer.status_code == 401
            assert "server" not in answer.headers
        await process.stop()
        assert "Application shutdown complete" in process.tail(50)
        assert "Traceback" not in process.tail(50)
    finally:
        await process.stop()
