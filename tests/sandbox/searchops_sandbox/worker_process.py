"""One worker process of the runner: its folder, log, termination message, and how it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from searchops_sandbox.pod_status import MESSAGE_BYTES, Ending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops_sandbox.reaper import GroupReaper

Json = dict[str, Any]
TERMINATION_VARIABLE: Final = "SEARCHOPS_TERMINATION_LOG"
UID_VARIABLE: Final = "SEARCHOPS_SANDBOX_POD_UID"
_FALLBACK_LINES: Final = 80
_FALLBACK_BYTES: Final = 2048
_PASSED_ON: Final = ("LANG", "LD_LIBRARY_PATH", "SEARCHOPS_CACHE", "SSL_CERT_FILE", "TZ")


class PodFolder:
    """Files of one Pod: ``<runner folder>/pods/<namespace>.<name>.<uid>/``; kept after its end, for people to read."""

    def __init__(self, root: Path, pod: Json) -> None:
        metadata = pod["metadata"]
        self.uid = str(metadata["uid"])
        self.path = root / "pods" / f"{metadata['namespace']}.{metadata['name']}.{self.uid}"
        self.log = self.path / "worker.log"
        self.termination = self.path / "termination-log"

    def make(self) -> None:
        """The folder with an empty termination message."""
        (self.path / "tmp").mkdir(parents=True, exist_ok=True)
        self.termination.touch()

    def base_environment(self) -> dict[str, str]:
        """What an image would bring: the programs of this Python environment first, a home and a scratch folder."""
        programs = str(Path(sys.executable).parent)
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            **passed,
            "PATH": os.pathsep.join((programs, "/usr/local/bin", "/usr/bin", "/bin")),
            "HOME": str(self.path),
            "TMPDIR": str(self.path / "tmp"),
            "PYTHONUNBUFFERED": "1",
        }

    def own_environment(self) -> dict[str, str]:
        """What the runner sets over everything else; ``terminationMessagePath`` is virtual, this is where it is."""
        return {TERMINATION_VARIABLE: str(self.termination), UID_VARIABLE: self.uid}

    def message(self, container: Json, exit_code: int) -> str:
        """The termination message, at most 4,096 bytes; the end of the log where the container asks for that."""
        content = _head(self.termination, MESSAGE_BYTES)
        if content or exit_code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
            return content
        lines = _tail(self.log, _FALLBACK_BYTES).splitlines()[-_FALLBACK_LINES:]
        return "\n".join(lines)


class WorkerProcess:
    """A running worker in a process group of its own; the whole group dies with the runner."""

    def __init__(
        self, process: asyncio.subprocess.Process, folder: PodFolder, started: datetime.datetime, reaper: GroupReaper
    ) -> None:
        self._process = process
        self._reaper = reaper
        self._folder = folder
        self.started = started

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: PodFolder,
        cwd: str | None,
        reaper: GroupReaper,
    ) -> WorkerProcess:
        """Starts the program.

        Raises:
            FileNotFoundError: where it is not on the PATH that the container is given.
        """
        program = shutil.which(argv[0], path=environment.get("PATH"))
        if program is None:
            raise FileNotFoundError(f"exec: {argv[0]!r}: executable file not found in $PATH")
        line = [program, *argv[1:]]
        if setpriv := shutil.which("setpriv"):
            line = [setpriv, "--pdeathsig", "KILL", "--", *line]
        with folder.log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                *line,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=dict(environment),
                cwd=cwd or folder.path,
                start_new_session=True,
            )
        reaper.add(process.pid)
        return cls(process, folder, datetime.datetime.now(datetime.UTC), reaper)

    async def wait(self, container: Json) -> Ending:
        """Waits for the end; what the worker left running in its group is killed, as with a container."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)
        self._reaper.discard(self._process.pid)
        exit_code = 128 - code if code < 0 else code
        message = self._folder.message(container, exit_code)
        return Ending(exit_code, message, self.started, datetime.datetime.now(datetime.UTC))

    async def terminate(self, grace: float) -> None:
        """SIGTERM to the group, `grace` seconds, then SIGKILL; returns when the process has ended."""
        if grace > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _head(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="ignore")
    except OSError:
        return ""


def _tail(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode(errors="ignore")
    except OSError:
        return ""
