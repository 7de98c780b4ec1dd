"""Remembers every secret that a cluster ever held: what is gone at the end may still stand in a log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from searchops_sandbox.kubernetes_api import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops_sandbox.kubernetes_api import KubernetesApi

SECRETS: Final = "/api/v1/secrets"
GATEWAY_FILE: Final = "credentials.json"
SECRET_KEYS: Final = ("token", "apiKey", "altApiKey")
AGAIN_SECONDS: Final = 2.0

#: What is shorter is a placeholder of a test and stands in any text by chance.
SHORTEST: Final = 12


def secrets_in(secret: Mapping[str, Any]) -> dict[str, str]:
    """The secret values of one Secret object, by where they are kept; the gateway's file is opened."""
    found: dict[str, str] = {}
    data = secret.get("data") or {}
    for key in SECRET_KEYS:
        if key in data:
            name = f"{secret['metadata']['namespace']}/{secret['metadata']['name']}.{key}"
            found[name] = base64.b64decode(data[key]).decode(errors="replace")
    if GATEWAY_FILE in data:
        credentials = json.loads(base64.b64decode(data[GATEWAY_FILE]))
        found |= {f"gateway key {number}": key for number, key in enumerate(credentials["keys"])}
        found |= {f"gateway token of {cell}": one["token"] for cell, one in credentials["cells"].items()}
    return {where: value for where, value in found.items() if value}


class SecretRecorder:
    """Watches every Secret from `start` to `stop`: one list, then one quiet connection.

    Args:
        connect: makes a client of the API server.
    """

    def __init__(self, connect: Callable[[], KubernetesApi]) -> None:
        self._connect = connect
        self._where: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def seen(self) -> tuple[tuple[str, str], ...]:
        """Where a value was first kept, and the value; each value once."""
        return tuple((where, value) for value, where in self._where.items())

    async def start(self) -> None:
        """Go on until `stop`."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; what was seen stays known."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def note(self, secret: Mapping[str, Any]) -> None:
        """Remember what one Secret holds."""
        for where, value in secrets_in(secret).items():
            if len(value) >= SHORTEST:
                self._where.setdefault(value, where)

    async def _run(self) -> None:
        async with self._connect() as api:
            while True:
                # The API server restarts, or the watch is too old: list again.
                with contextlib.suppress(ApiError, OSError, aiohttp.ClientError):
                    listed = await api.get(SECRETS)
                    for item in listed["items"]:
                        self.note(item)
                    async for _, item in api.watch(SECRETS, listed["metadata"]["resourceVersion"]):
                        self.note(item)
                await asyncio.sleep(AGAIN_SECONDS)
