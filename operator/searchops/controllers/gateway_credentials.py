"""Keeps the gateway's Secret: read, plan, write; also what tells tenants which key their tokens are signed with."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from searchops.api.shared import CellCredential, GatewayCredentials
from searchops.planning.gateway_credentials import claimed, plan_credentials
from searchops.runtime.errors import ReconcileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from searchops.api.observed import CellState
    from searchops.api.shared import HeldCredentials, Notes
    from searchops.api.v1alpha1 import SearchTenant
    from searchops.planning.gateway_credentials import CredentialSettings
    from searchops.ports import CellDirectory, CellKeys, CellReader, ObjectReader, TokenSigner
    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.key import Key

logger = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
PAUSE_SECONDS = 1.0
"""Between two rounds, however often one is asked for: a round reads every cell, and every pass of a burst may ask."""


class GatewaySecret(Protocol):
    """The Secret that the gateway mounts."""

    async def read(self) -> HeldCredentials | None:
        """What it holds; None where there is none. One that is not ours, or unreadable, raises Terminal."""
        ...

    async def write(self, credentials: GatewayCredentials, notes: Notes) -> None:
        """Create it, or replace what was read last; Conflict where it was changed meanwhile."""
        ...


class GatewayCredentialKeeper:
    """`GatewayKeys`, and the loop that keeps the credentials.

    Args:
        new_key: makes a key of 32 bytes or more.
        protect: told of values that must never be let out in a message.
        wake: asks for a pass over a tenant.
        period: seconds between two rounds; `changed` asks for one at once.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        *,
        secret: GatewaySecret,
        directory: CellDirectory,
        cells: CellReader,
        objects: ObjectReader,
        keys: CellKeys,
        signer: TokenSigner,
        tenants: ObjectCache[SearchTenant],
        wake: Callable[[Key], Any],
        clock: Callable[[], datetime],
        new_key: Callable[[], str],
        protect: Callable[..., None] = lambda *_secrets: None,
        period: float = 300.0,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._directory = directory
        self._cells = cells
        self._objects = objects
        self._keys = keys
        self._signer = signer
        self._tenants = tenants
        self._wake = wake
        self._clock = clock
        self._new_key = new_key
        self._protect = protect
        self._period = period
        self._asked = asyncio.Event()
        self._key: str | None = None

    def key(self) -> str | None:
        """The key that signs tokens of shared tenants; None before the first round has ended well."""
        if self._key is None:
            self._asked.set()
        return self._key

    def changed(self) -> None:
        """A shared collection was made: the gateway needs a token that names it."""
        self._asked.set()

    async def run(self) -> None:
        """Rounds without end; one that fails is repeated soon."""
        while True:
            self._asked.clear()
            done = await self.run_once()
            try:
                async with asyncio.timeout(self._period if done else RETRY_SECONDS):
                    await self._asked.wait()
                await asyncio.sleep(PAUSE_SECONDS)
            except TimeoutError:
                continue

    async def run_once(self) -> bool:
        """One round; whether it ended well."""
        try:
            await self._round()
        except ReconcileError as error:
            logger.warning("the gateway's credentials were not looked after", extra={"error": str(error)})
            return False
        return True

    async def _round(self) -> None:
        held = await self._secret.read()
        if held is not None and held.credentials.keys:
            self._sign_with(held.credentials.keys[0])  # before any cell is asked: a silent one holds back no other
        cells = await self._surveyed()
        if held is None and not any(cell.shared for cell in cells.values()) and not self._wanted():
            return
        signing = {name: self._keys.signing(cell.registration) for name, cell in cells.items()}
        cluster = await self._objects.cluster_uid()
        new_key = self._new_key()
        plan = plan_credentials(held, cells, signing, cluster, self._settings, self._clock(), new_key)
        self._protect(*plan.keys)
        if plan.changed:
            made = dict(plan.kept)
            for name, claims in plan.signed.items():
                signer = signing[name]
                assert signer is not None  # noqa: S101 - nothing is signed without
                collections, register = claimed(claims, self._settings.fleet)
                token = self._signer.sign(signer, claims)
                self._protect(token)
                made[name] = CellCredential(token=token, collections=collections, register_name=register)
            await self._secret.write(GatewayCredentials(keys=plan.keys, cells=made), plan.notes)
        self._sign_with(plan.keys[0])

    def _sign_with(self, key: str) -> None:
        if key == self._key:
            return
        self._key = key
        self._protect(key)
        for cached in self._shared():
            self._wake(cached.key)

    async def _surveyed(self) -> dict[str, CellState]:
        directory = self._directory.cells()
        states = await asyncio.gather(*(self._cells.survey(cell) for cell in directory.values()))
        return {state.name: state for state in states}

    def _wanted(self) -> bool:
        return any(True for _ in self._shared())

    def _shared(self) -> list[CachedObject]:
        return [
            cached
            for cached in self._tenants
            if cached.raw.get("spec", {}).get("isolation", "Collection") != "Collection"
            or (cached.status.get("isolation") or {}).get("mode", "Collection") != "Collection"
        ]
