"""The register of tokens, a cell's one key and a silent canary, in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from searchops.api.observed import RegisterState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from searchops.api.observed import CanaryResult, CellIdentity, CellRegistration, TokenGrant, Trial
    from searchops.api.room import CellHold


class Register:
    """`TokenRegister` over dictionaries. Its collections are not among those of a survey, so each cell has one."""

    def __init__(self) -> None:
        self.owners: dict[str, CellIdentity] = {}
        self.grants: dict[str, dict[str, dict[str, TokenGrant]]] = defaultdict(lambda: defaultdict(dict))
        self.calls: Counter[str] = Counter()

    async def read(self, cell: CellRegistration, collection: str, uid: str, *, exists: bool) -> RegisterState:
        del collection, exists
        self.calls["read"] += 1
        owner = self.owners.get(cell.name)
        return RegisterState(owner is not None, owner, tuple(self.grants[cell.name][uid].values()))

    async def prepare(self, cell: CellRegistration, collection: str, owner: CellIdentity, replicas: int) -> None:
        del collection, replicas
        self.calls["prepare"] += 1
        await asyncio.sleep(0)
        self.owners[cell.name] = owner

    async def grant(self, cell: CellRegistration, collection: str, grants: Sequence[TokenGrant]) -> None:
        del collection
        self.calls["grant"] += 1
        await asyncio.sleep(0)
        for grant in grants:
            self.grants[cell.name][grant.uid][grant.id] = grant

    async def revoke(self, cell: CellRegistration, collection: str, ids: Sequence[str]) -> None:
        del collection
        self.calls["revoke"] += 1
        await asyncio.sleep(0)
        for own in self.grants[cell.name].values():
            for ident in ids:
                own.pop(ident, None)


class OneKey:
    """`CellKeys` of cells that have no second key."""

    def signing(self, cell: CellRegistration) -> CellRegistration | None:
        return cell

    def saw(self, tenant: tuple[str, str], cell: str, key_ids: Sequence[str]) -> None:
        """Nothing is counted."""

    def forget(self, tenant: tuple[str, str]) -> None:
        """Nothing was kept."""


class SilentCanary:
    """`CanaryFindings` that has not spoken."""

    def result(self, tenant: tuple[str, str]) -> CanaryResult | None:
        del tenant
        return None


class NoGateway:
    """`GatewayKeys` and `TokenTrials` of a fleet in which no tenant shares a collection: nobody asks."""

    def key(self) -> str | None:
        return None

    async def at_cell(self, cell: CellRegistration, alias: str, token: str) -> Trial:
        raise AssertionError(f"{cell.name}: {alias} was tried with a token of {len(token)}")

    async def at_gateway(self, url: str, tenant: str, token: str) -> Trial:
        raise AssertionError(f"{url}: {tenant} was tried with a token of {len(token)}")


class RoomyCells:
    """`CellRooms` of cells that always have room."""

    async def holds(self) -> Mapping[str, CellHold]:
        return {}

    def full(self, cell: str, said: str) -> None:
        raise AssertionError(f"cell {cell} is full: {said}")
