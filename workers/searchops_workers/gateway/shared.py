"""Tenants that share a collection: who may call, and where a tenant's slices stand.

All of it comes from the cell, read with the gateway's own credential and kept for seconds: the register of tokens, and
the metadata of the shared collections, one reading each for all their tenants. A tenant's record names its slices; of
two collections that know a name, the one with the greater turn holds it, so all of them must have been read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qdrant_client import models

from searchops.api.shared import SliceAddress, record_key, records_of, standing
from searchops_workers.gateway.bindings import CACHED, parse_bindings
from searchops_workers.gateway.callers import REGISTERED_KEY
from searchops_workers.gateway.cells import Gone
from searchops_workers.gateway.doors import Tenancy, TierMove
from searchops_workers.gateway.problems import Problem
from searchops_workers.gateway.readings import Readings
from searchops_workers.retrieval.scope import Scope, ScopedPoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.api.shared import CellCredential, SliceRecord, TenantRecord
    from searchops_workers.gateway.bindings import TenantBinding
    from searchops_workers.gateway.callers import VerifiedCaller
    from searchops_workers.gateway.cells import Cells
    from searchops_workers.gateway.credentials import CredentialSource
    from searchops_workers.gateway.doors import Door
    from searchops_workers.retrieval.scope import Foreign

SUFFIXES = ("@a", "@b")
COLLECTIONS = 1_000


@dataclass(frozen=True, slots=True)
class CellAccess:
    """The gateway's own credential on a cell."""

    cell: str
    token: str = field(repr=False)

    @property
    def own(self) -> bool:
        """It is the gateway's."""
        return True


@dataclass(frozen=True, slots=True)
class SharedDoor:
    """The slices of one tenant, reached with the gateway's credential.

    Attributes:
        scopes: by the names that stand in shared collections; the alias is among them.
    """

    alias: str
    cell: str
    token: str = field(repr=False)
    scopes: Mapping[str, Scope]

    @property
    def own(self) -> bool:
        """The token is the gateway's."""
        return True

    def scope(self, side: str) -> Scope:
        """The points of a side.

        Raises:
            TierMove: no shared collection knows the side: it is a collection of its own, which is not ours to open.
        """
        found = self.scopes.get(side)
        if found is None:
            raise TierMove(side)
        return found


Found = tuple[tuple[str, str], ...]
"""The collections that know a tenant, each with the text of its record there."""


@dataclass(frozen=True, slots=True)
class Known:
    """A tenancy, and all that it was made from."""

    found: Found
    token: str = field(repr=False)
    tenancy: Tenancy


class SharedTenants:
    """Tenants of the tiers Shared and ShardKey.

    Args:
        cells: where they are.
        credentials: what the gateway may do there.
        foreign: told of points that came back and are another tenant's.
        seconds: how long a reading may be used, of the register too: a token that is revoked is refused after it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cells: Cells,
        credentials: CredentialSource,
        foreign: Foreign,
        *,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._cells = cells
        self._credentials = credentials
        self._foreign = foreign
        self._metadata: Readings[tuple[str, str], Mapping[str, object]] = Readings(
            seconds=seconds, clock=clock, kept=COLLECTIONS
        )
        self._registered: Readings[tuple[str, str, str], bool] = Readings(seconds=seconds, clock=clock, kept=CACHED)
        self._counts: Readings[tuple[str, Scope], int] = Readings(seconds=seconds, clock=clock, kept=CACHED)
        self._known: OrderedDict[tuple[str, str, str], Known] = OrderedDict()

    async def read(self, caller: VerifiedCaller, *, fresh: bool = False) -> Tenancy:
        """The caller's tenant.

        A collection that cannot be read may hold a greater turn of its name. Only one who is known to stand elsewhere,
        and to be at rest there, is served meanwhile: a move begins with a side that is filled, which would show.

        Raises:
            Problem: 401 for a token that was revoked, 403 where the record is another tenant's, 404 where there is
                none, 503 where something that must be known cannot be read.
        """
        credential = self._credentials.cell(caller.cell)
        access = CellAccess(caller.cell, credential.token)
        await self._require_registered(caller, access, credential)
        found, unread = await self._found(caller, access, credential, fresh=fresh)
        key = (caller.cell, caller.uid, caller.alias)
        known = self._known.get(key)
        if unread is not None and (fresh or known is None or not _same_homes(known.found, found)):
            raise unread
        if known is not None and (known.found, known.token) == (found, access.token):
            tenancy = known.tenancy
        else:
            tenancy = _tenancy(caller, access, found)
        if unread is None:
            self._remember(key, Known(found, access.token, tenancy))
        elif tenancy.bindings.pending is not None or tenancy.bindings.previous is not None:
            raise unread  # it may have moved there
        return tenancy

    def _remember(self, key: tuple[str, str, str], known: Known) -> None:
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > CACHED:
            self._known.popitem(last=False)

    async def _require_registered(self, caller: VerifiedCaller, access: CellAccess, credential: CellCredential) -> None:
        """Refuse a token whose entry does not stand in the cell's register, as the database does with its own."""
        registration, register = caller.registration, credential.register_name
        if registration is None and not register:
            return
        if registration is not None and not register:
            raise Problem(
                503,
                f"whether the token was revoked is not known: the gateway's credential for cell {caller.cell} names no "
                "register; the operator makes a lost one anew. Where tokens are no longer revocable, use the one that "
                "stands in the tenant's Secret",
                code="register-unreadable",
                retry_after=10,
            )
        if registration is None or registration.collection != register:
            raise Problem(
                401,
                "the token was signed before the register of its cell was what it is now; use the one that stands in "
                "the tenant's Secret",
                code="bad-credentials",
            )
        key = (caller.cell, register, registration.value)
        await self._registered.read(key, lambda: self._look_up(access, register, registration.value))

    async def _look_up(self, access: CellAccess, register: str, value: str) -> bool:
        wanted = models.FieldCondition(key=REGISTERED_KEY, match=models.MatchValue(value=value))
        try:
            async with self._cells.calling(access) as client:
                points, _ = await client.scroll(
                    register, scroll_filter=models.Filter(must=[wanted]), limit=1, with_payload=False
                )
        except Problem as problem:
            raise Problem(
                503,
                f"whether the token was revoked cannot be read from the register of its cell: {problem.detail}",
                code="register-unreadable",
                retry_after=problem.retry_after or 5,
            ) from problem
        if not points:
            raise Problem(
                401,
                "the token was revoked: its access entry was removed or made anew; use the tenant's Secret as it is",
                code="token-revoked",
            )
        return True

    async def _found(
        self, caller: VerifiedCaller, access: CellAccess, credential: CellCredential, *, fresh: bool
    ) -> tuple[Found, Problem | None]:
        """The tenant's records, and why a collection could not be asked for one; one that is gone has none."""
        readings: list[Mapping[str, object] | BaseException] = []
        for collection in credential.collections:
            held = None if fresh else self._metadata.held((access.cell, collection))
            if held is None:
                break
            readings.append(held)
        if len(readings) < len(credential.collections):
            readings = await asyncio.gather(
                *(self._read(access, collection, fresh=fresh) for collection in credential.collections),
                return_exceptions=True,
            )
        found: list[tuple[str, str]] = []
        unread: Problem | None = None
        for collection, reading in zip(credential.collections, readings, strict=True):
            if isinstance(reading, Gone):
                continue
            if isinstance(reading, Problem):
                unread = unread or reading
            elif isinstance(reading, BaseException):
                raise reading
            else:
                text = reading.get(record_key(caller.uid))
                if text is not None:
                    found.append((collection, str(text)))
        return tuple(found), unread

    async def _read(self, access: CellAccess, collection: str, *, fresh: bool) -> Mapping[str, object]:
        async def metadata() -> Mapping[str, object]:
            async with self._cells.calling(access) as client:
                info = await client.get_collection(collection)
            return info.config.metadata or {}

        return await self._metadata.read((access.cell, collection), metadata, fresh=fresh)

    async def points(self, door: Door) -> int:
        """How many points the tenant's live slice has, exactly, tombstones included."""

        async def count(scope: Scope) -> int:
            async with self._cells.calling(door) as client:
                return await ScopedPoints(client, scope, self._foreign).count()

        live = door.scope(door.alias)
        return await self._counts.read((door.cell, live), lambda: count(live))


def _same_homes(one: Found, other: Found) -> bool:
    return [collection for collection, _ in one] == [collection for collection, _ in other]


def _tenancy(caller: VerifiedCaller, access: CellAccess, found: Found) -> Tenancy:
    """Where the tenant's names stand and what it is bound to.

    Raises:
        Problem: 403, 404 or 503, as `SharedTenants.read`.
    """
    records = _records(caller, found)
    live = standing(records.items(), "")
    if live is None:
        raise _unknown(caller)
    bindings = parse_bindings(live[2].metadata)
    scopes = {caller.alias: _scope(records, live)}
    for suffix in SUFFIXES:
        side = standing(records.items(), suffix)
        if side is not None:
            scopes[caller.alias + suffix] = _scope(records, side)
    _check_sides(caller.alias, bindings, scopes)
    return Tenancy(SharedDoor(caller.alias, caller.cell, access.token, scopes), bindings)


def _records(caller: VerifiedCaller, found: Found) -> dict[str, TenantRecord]:
    if not found:
        raise _unknown(caller)
    key = record_key(caller.uid)
    records = {collection: records_of({key: text}).get(caller.uid) for collection, text in found}
    unreadable = [collection for collection, record in records.items() if record is None]
    if unreadable:
        raise Problem(
            503,
            f"the tenant's record {key} in {unreadable[0]} cannot be read; gateway and operator must be of versions "
            "that fit",
            code="record-unreadable",
            retry_after=10,
        )
    own = {name: record for name, record in records.items() if record is not None and record.alias == caller.alias}
    if not own:
        raise Problem(
            403,
            f"the token does not open tenant {caller.tenant}: the record of its uid is another tenant's; use the token "
            "of that tenant's own Secret",
            code="other-tenant",
        )
    return own


def _unknown(caller: VerifiedCaller) -> Gone:
    return Gone(
        404,
        f"no shared collection of cell {caller.cell} knows tenant {caller.tenant}: it was deleted, has a collection of "
        "its own by now (its Secret then has another token), or is not provisioned yet",
        code="no-collection",
    )


def _scope(records: Mapping[str, TenantRecord], stands: tuple[str, int, SliceRecord]) -> Scope:
    collection, _, held = stands
    return Scope.of(SliceAddress(records[collection].tier, collection, held.key))


def _check_sides(alias: str, bindings: TenantBinding, scopes: dict[str, Scope]) -> None:
    """The binding stands in the live slice's own record, so its side is that slice; another side is another slice.

    Raises:
        Problem: 503 where the record says otherwise; what is written by it would not be what searches see.
    """
    bound = bindings.binding.side or alias
    live = scopes[alias]
    others = {binding.side or alias for binding in (bindings.pending, bindings.previous) if binding is not None}
    if scopes.setdefault(bound, live) != live or any(scopes.get(side) == live for side in others - {bound, alias}):
        raise Problem(
            503,
            f"the record of {alias} contradicts itself: its binding's side {bound} and the slices that its names stand "
            "for do not fit; nothing is read or written by it; see the SearchTenant's conditions",
            code="record-unreadable",
            retry_after=10,
        )
