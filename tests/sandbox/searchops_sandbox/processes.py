"""Child processes of the sandbox: started in their own group, logged to a file, gone with their parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path


class SandboxError(RuntimeError):
    """A part of the sandbox did not start or died; the message ends with the last lines of its log."""


class ManagedProcess:
    """One program of the sandbox.

    The child runs in its own process group (so that its own children can be signalled together) and under
    ``setpriv --pdeathsig KILL`` where that exists, so that even a SIGKILL of the sandbox leaves nothing behind.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._log = log
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id, or None before the start."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """Exit status, or None while the process runs."""
        return self._process.returncode if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the program; its standard output and error go to the log file."""
        if self.running:
            raise SandboxError(f"{self.name} is already running as process {self.pid}")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        argv = self._argv
        if setpriv := shutil.which("setpriv"):
            argv = [setpriv, "--pdeathsig", "KILL", "--", *argv]
        with self._log.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    async def stop(self, *, grace: float = 10.0) -> int | None:
        """SIGTERM to the group, wait `grace` seconds, then SIGKILL. Returns the exit status."""
        if self._process is None:
            return None
        if self._process.returncode is None:
            self.signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), grace)
            except TimeoutError:
                await self.kill()
        self.signal(signal.SIGKILL)
        return self._process.returncode

    async def kill(self) -> None:
        """SIGKILL to the whole group, and wait for the end."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process group; a group that is gone is no error."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def tail(self, lines: int = 40) -> str:
        """The last lines of the log, for error messages."""
        if not self._log.exists():
            return f"({self.name} wrote no log)"
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    async def wait_until(self, probe: Callable[[], Awaitable[bool]], *, timeout: float) -> None:
        """Poll `probe` until it is true.

        Raises:
            SandboxError: when the process ended or `timeout` seconds passed; with the end of its log.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise SandboxError(
                    f"{self.name} ended with status {self.returncode} before it was ready:\n{self.tail()}"
                )
            with contextlib.suppress(OSError, TimeoutError):
                if await probe():
                    return
            await asyncio.sleep(0.1)
        raise SandboxError(f"{self.name} was not ready within {timeout:g} s:\n{self.tail()}")
