"""A Secret as files in a folder, kept current: what a kubelet does for the Pods that mount one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING

from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from searchops_sandbox.kubernetes_api import KubernetesApi

EVERY_SECONDS = 0.5


class MountedSecret:
    """One Secret's keys as files; each is replaced whole, so that a reader never sees half of one.

    Args:
        connect: makes a client of the API server.
        namespace: the Secret's.
        name: the Secret's; it may come later, or never (``optional: true`` of a volume).
        folder: where its keys stand as files.
    """

    def __init__(self, connect: Callable[[], KubernetesApi], namespace: str, name: str, folder: Path) -> None:
        self._connect = connect
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        self._folder = folder
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on until `stop`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, and leave no file behind."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for path in self._folder.glob("*"):
            path.unlink()

    async def _run(self) -> None:
        async with self._connect() as api:
            while True:
                with contextlib.suppress(ApiError, OSError):  # not there yet, or the server restarts
                    self._write((await api.get(self._path)).get("data") or {})
                await asyncio.sleep(EVERY_SECONDS)

    def _write(self, data: dict[str, str]) -> None:
        for key, value in data.items():
            path, content = self._folder / key, base64.b64decode(value)
            if path.exists() and path.read_bytes() == content:
                continue
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(path)
