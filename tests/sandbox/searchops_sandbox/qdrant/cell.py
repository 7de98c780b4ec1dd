"""A Qdrant cell of the sandbox: the double, or the real binary that `QDRANT_BIN` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx

from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess
from searchops_sandbox.qdrant.faults import without_room

START_SECONDS = 180.0
HOST = "127.0.0.1"


class QdrantCell:
    """One cell as a process of its own; its folder survives stop, kill and a new start.

    Args:
        name: for logs and messages.
        folder: data, log and (for a real binary) storage.
        api_key: the cell's key; tokens are signed with it.
        alt_api_key: a second accepted key, for rotation.
        release: which server release the double shows; a real binary is what it is.
        max_collections: the server's own cap, if any.
        cluster: cluster mode with this one node, which shard keys need.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        api_key: str,
        alt_api_key: str | None = None,
        release: str = "1.18.3",
        max_collections: int | None = None,
        cluster: bool = False,
    ) -> None:
        self.name = name
        self.folder = folder
        self.api_key = api_key
        self.alt_api_key = alt_api_key
        self.rest_port = free_port()
        self.grpc_port = free_port()
        self._release = release
        self._max_collections = max_collections
        self._cluster = cluster
        self._process: ManagedProcess | None = None

    def __repr__(self) -> str:
        return f"QdrantCell({self.name!r}, {self.rest_url}, double={self.is_double})"

    @property
    def rest_url(self) -> str:
        """Base URL of the REST API."""
        return f"http://{HOST}:{self.rest_port}"

    @property
    def is_double(self) -> bool:
        """Whether this is the double (faults can be injected) and not a real server."""
        return not os.environ.get("QDRANT_BIN")

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.running

    async def start(self) -> None:
        """Start and wait until it is ready.

        Raises:
            SandboxError: when it does not become ready; with the end of its log.
        """
        environment = dict(os.environ)
        environment["QDRANT__SERVICE__API_KEY"] = self.api_key
        environment.pop("QDRANT__SERVICE__ALT_API_KEY", None)
        if self.alt_api_key is not None:
            environment["QDRANT__SERVICE__ALT_API_KEY"] = self.alt_api_key
        binary = os.environ.get("QDRANT_BIN") or None
        argv = self._double_argv(environment) if binary is None else [binary]
        if binary is not None:
            environment |= self._server_environment()
            if self._cluster:
                peers = str(free_port())
                environment |= {"QDRANT__CLUSTER__ENABLED": "true", "QDRANT__CLUSTER__P2P__PORT": peers}
                argv += ["--uri", f"http://{HOST}:{peers}"]
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "qdrant.log"
        process = ManagedProcess(f"qdrant cell {self.name}", argv, log=log, env=environment, cwd=self.folder)
        self._process = process
        await process.start()
        async with httpx.AsyncClient(timeout=2.0) as client:

            async def ready() -> bool:
                try:
                    return (await client.get(f"{self.rest_url}/readyz")).status_code == 200
                except httpx.HTTPError:
                    return False

            await process.wait_until(ready, timeout=START_SECONDS)

    def _double_argv(self, environment: dict[str, str]) -> list[str]:
        here = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [here, environment.get("PYTHONPATH")]))
        # Without this the engine's allocator keeps an arena a thread.
        environment.setdefault("MALLOC_ARENA_MAX", "2")
        argv = [sys.executable, "-m", "searchops_sandbox.qdrant", "--folder", str(self.folder / "data")]
        argv += ["--port", str(self.rest_port), "--grpc-port", str(self.grpc_port), "--release", self._release]
        if self._max_collections is not None:
            argv += ["--max-collections", str(self._max_collections)]
        if self._cluster:
            argv.append("--cluster")
        return argv

    def _server_environment(self) -> dict[str, str]:
        values = {
            "QDRANT__SERVICE__HOST": HOST,
            "QDRANT__SERVICE__HTTP_PORT": str(self.rest_port),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc_port),
            "QDRANT__SERVICE__JWT_RBAC": "true",
            "QDRANT__STORAGE__STORAGE_PATH": str(self.folder / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self.folder / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
        }
        if self._max_collections is not None:
            values["QDRANT__STORAGE__MAX_COLLECTIONS"] = str(self._max_collections)
        return values

    async def stop(self) -> None:
        """SIGTERM, then wait; shards are flushed."""
        if self._process is not None:
            await self._process.stop()

    async def kill(self) -> None:
        """SIGKILL, as a machine that loses power would, and wait for the end."""
        if self._process is not None:
            await self._process.kill()

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return self._process.tail(lines) if self._process else f"({self.name} was not started)"

    async def use_keys(self, api_key: str, alt_api_key: str | None = None) -> None:
        """Change the accepted keys while it serves: the double's stand-in for a rolling restart with other keys.

        Raises:
            RuntimeError: on a real server, whose keys change by a restart only.
        """
        if not self.is_double:
            raise RuntimeError(f"{self.name} is a real server: its keys change by a restart")
        async with httpx.AsyncClient(timeout=10.0, headers={"api-key": self.api_key}) as client:
            body = {"api_key": api_key, "alt_api_key": alt_api_key}
            (await client.post(f"{self.rest_url}/__sandbox/keys", json=body)).raise_for_status()
        self.api_key, self.alt_api_key = api_key, alt_api_key

    async def inject(self, *faults: dict[str, object]) -> None:
        """Put faults in force (see `faults.Fault` for the fields); only the double takes them.

        Raises:
            RuntimeError: on a real server, which takes no orders to fail.
        """
        await self._faults("POST", list(faults))

    async def fill(self) -> None:
        """From now on there is no room: what would take some is answered with 507, reads and removals go on.

        `clear_faults` gives room again, and removes every other fault too.
        """
        await self.inject(*(fault.model_dump() for fault in without_room()))

    async def clear_faults(self) -> None:
        """Remove every injected fault."""
        await self._faults("DELETE", None)

    async def requests_seen(self) -> dict[str, int]:
        """REST requests since the start by method and route; only the double counts them.

        Raises:
            RuntimeError: on a real server.
        """
        if not self.is_double:
            raise RuntimeError(f"{self.name} is a real server: only the double counts its requests")
        async with httpx.AsyncClient(timeout=10.0) as client:
            response = await client.get(f"{self.rest_url}/__sandbox/requests")
            response.raise_for_status()
            return {str(route): int(count) for route, count in response.json().items()}

    async def _faults(self, method: str, body: object) -> None:
        if not self.is_double:
            raise RuntimeError(f"{self.name} is a real server: faults can only be injected into the double")
        async with httpx.AsyncClient(timeout=10.0, headers={"api-key": self.api_key}) as client:
            response = await client.request(method, f"{self.rest_url}/__sandbox/faults", json=body)
            response.raise_for_status()
