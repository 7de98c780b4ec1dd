"""A real Triton server on loopback: CPU, explicit model control, python backend."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import aiohttp

from searchops_sandbox.ports import free_port
from searchops_sandbox.processes import ManagedProcess
from searchops_sandbox.triton_environment import TritonEnvironment, ensure_environment

_READY_SECONDS = 60.0
_EXIT_SECONDS = 5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it; the server's own prefix is swept


class TritonServer:
    """One server over one model repository; several servers may share a repository.

    The addresses stay the same over stop, kill and a new start, so that a restarted server is the same member of its
    pool. An empty server is ready at once: ask for each model, not for the server.

    Args:
        name: unique among the servers of a sandbox; also names the log file.
        folder: where the log is written.
        repository: the model repository; it is made where it is missing.
    """

    def __init__(self, name: str, *, folder: Path, repository: Path) -> None:
        self.name = name
        self.repository = repository
        self.log = folder / f"triton-{name}.log"
        self._http_port = free_port()
        self._grpc_port = free_port()
        self._metrics_port = free_port()
        identity = hashlib.sha256(str(self.log.absolute()).encode()).hexdigest()[:12]
        self.shared_memory_prefix = f"searchops_{identity}_"
        self._process: ManagedProcess | None = None

    @property
    def http_url(self) -> str:
        """Base URL of the HTTP API."""
        return f"http://127.0.0.1:{self._http_port}"

    @property
    def grpc_url(self) -> str:
        """``host:port`` of the gRPC API, the form that clients take."""
        return f"127.0.0.1:{self._grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics."""
        return f"http://127.0.0.1:{self._metrics_port}/metrics"

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Build the environment where needed, start the server and wait until it is live.

        Raises:
            SandboxError: with the end of the log, where it does not come up.
        """
        environment = await asyncio.to_thread(ensure_environment)
        self.repository.mkdir(parents=True, exist_ok=True)
        self._sweep_shared_memory()
        self._process = ManagedProcess(
            f"triton-{self.name}", self._argv(environment), log=self.log, env=environment.variables()
        )
        await self._process.start()
        await self._process.wait_until(self._live, timeout=_READY_SECONDS)

    async def stop(self) -> None:
        """SIGTERM, wait for unloading, SIGKILL what is left; removes the server's shared memory."""
        if self._process is not None:
            await self._process.stop(grace=_EXIT_SECONDS + 10.0)
            self._sweep_shared_memory()

    async def kill(self) -> None:
        """SIGKILL to the server and its stubs, as on a node that fails."""
        if self._process is not None:
            await self._process.kill()
            self._sweep_shared_memory()

    def shared_memory(self) -> tuple[Path, ...]:
        """The server's files in shared memory; a crashed stub leaves some."""
        return tuple(_SHARED_MEMORY.glob(f"{self.shared_memory_prefix}*"))

    def tail(self, lines: int = 40) -> str:
        """The last lines of the server's log."""
        return self._process.tail(lines) if self._process else f"({self.name} was not started)"

    def _argv(self, environment: TritonEnvironment) -> list[str]:
        prefix = self.shared_memory_prefix
        return [
            str(environment.server),
            f"--model-repository={self.repository}",
            f"--backend-directory={environment.backends}",
            f"--cache-directory={environment.caches}",
            "--model-control-mode=explicit",
            "--strict-readiness=false",
            "--exit-on-error=false",
            "--disable-auto-complete-config",
            f"--exit-timeout-secs={_EXIT_SECONDS}",
            f"--http-port={self._http_port}",
            f"--grpc-port={self._grpc_port}",
            f"--metrics-port={self._metrics_port}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            "--metrics-address=127.0.0.1",
            "--http-thread-count=2",
            "--model-load-thread-count=2",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            "--backend-config=python,stub-timeout-seconds=60",
            "--log-verbose=0",
        ]

    async def _live(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=2.0)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.http_url}/v2/health/live") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def _sweep_shared_memory(self) -> None:
        for left in self.shared_memory():
            left.unlink(missing_ok=True)
