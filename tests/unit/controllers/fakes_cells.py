"""Cells in memory that keep Qdrant's rules, and note every write that a careful operator would never send."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from searchops.api.observed import (
    CellContents,
    CellIdentity,
    CellState,
    CollectionOutline,
    CollectionState,
    RegisterState,
    SearchProbe,
    TokenGrant,
)
from searchops.api.retrieval import Binding
from searchops.api.shared import SliceAddress
from searchops.planning.names import (
    KEY_BINDING,
    KEY_FLEET,
    KEY_GENERATION,
    KEY_NAME,
    KEY_NAMESPACE,
    KEY_NAMESPACE_UID,
    KEY_PENDING,
    KEY_PREVIOUS,
    KEY_UID,
)
from searchops.runtime.errors import Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from searchops.api.observed import CellRegistration, CollectionDesign, StrictMode
    from unit.controllers.fakes_faults import Faults


SAME_NAME = (KEY_NAMESPACE, KEY_NAME, KEY_NAMESPACE_UID)
REGISTER = "prod@tokens"


@dataclass(slots=True)
class FakePoint:
    """A point: the version of the document that each of its vectors was made from ("" is the payload), and its mark."""

    versions: dict[str, int]
    missed: str | None = None


@dataclass(slots=True)
class FakeCollection:
    """A collection with its points by id."""

    design: CollectionDesign
    metadata: dict[str, str]
    dense: dict[str, int]
    strict: StrictMode | None
    indexes: dict[str, str] = field(default_factory=dict)
    points: dict[int, FakePoint] = field(default_factory=dict)

    @property
    def slice(self) -> SliceAddress | None:
        """Where it would stand in a shared collection."""
        if self.design.tier == "Collection":
            return None
        return SliceAddress(self.design.tier, f"prod@shared-{self.design.layout}-0", f"key-{self.design.name}")

    def binding(self, key: str) -> Binding | None:
        text = self.metadata.get(key)
        return Binding.from_metadata(text) if text is not None else None


@dataclass(slots=True)
class FakeCell:
    """One server."""

    collections: dict[str, FakeCollection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    identity: CellIdentity | None = None
    reachable: bool = True
    register_owner: CellIdentity | None = None
    grants: dict[str, TokenGrant] | None = None

    def names(self) -> frozenset[str]:
        """Every collection's name, the register's too."""
        return frozenset(self.collections) | (frozenset() if self.grants is None else {REGISTER})

    def resolve(self, name: str) -> FakeCollection | None:
        return self.collections.get(self.aliases.get(name, name))


class FakeCells:
    """`CellReader` and `CellWriter` over `FakeCell`s.

    Attributes:
        broken: writes that touched what is not the tenant's, or took away what its live collection names.
    """

    def __init__(self, faults: Faults, *, fleet: str = "prod", uids: Callable[[], set[str]]) -> None:
        self.cells: dict[str, FakeCell] = {}
        self.broken: list[str] = []
        self.writes: list[str] = []
        self._faults = faults
        self._fleet = fleet
        self._uids = uids
        self.register = FakeRegister(self, faults)

    def cell(self, registration: CellRegistration) -> FakeCell:
        return self.cells.setdefault(registration.name, FakeCell())

    # -- reads -------------------------------------------------------------------------------------------------

    async def survey(self, cell: CellRegistration) -> CellState:
        found = self.cell(cell)
        if cell.problem or not found.reachable:
            return CellState(cell, reachable=False, error=cell.problem or "refused")
        state = CellState(cell, True, "", found.identity, found.names(), dict(found.aliases))
        return self._faults.through("survey", lambda: state)

    async def describe(self, cell: CellRegistration, collection: str) -> CollectionState | None:
        found = self.cell(cell).collections.get(collection)
        state = None if found is None else _state(found)
        return self._faults.through("describe", lambda: state)

    async def contents(self, cell: CellRegistration) -> CellContents:
        found = self.cell(cell)
        if not found.reachable:
            raise Transient("refused")
        states = {name: _state(item) for name, item in found.collections.items()}
        outlines = {name: outlined(state) for name, state in states.items()}
        if found.grants is not None:
            outlines[REGISTER] = CollectionOutline(REGISTER, 0, {}, frozenset(), 1, 1, None, {})
        said = CellContents(cell, "", found.identity, outlines, dict(found.aliases), 0, "start")
        return self._faults.through("bulk read", lambda: said)

    async def count(
        self, cell: CellRegistration, collection: str, *, lacking: str | None = None, missed: str | None = None
    ) -> int:
        found = self._there(cell, collection)
        if missed is not None:
            marked = sum(point.missed == missed for point in found.points.values())
            return self._faults.through("count", lambda: marked)
        wanted = [point for point in found.points.values() if lacking is None or lacking not in point.versions]
        return self._faults.through("count", lambda: len(wanted))

    async def probe_search(self, cell: CellRegistration, alias: str, vector: str, token: str) -> SearchProbe:
        found = self.cell(cell).resolve(alias)
        ok = found is not None and vector in found.design.sparse and bool(token)
        return self._faults.through("probe", lambda: SearchProbe(ok, "" if ok else "refused"))

    # -- writes ------------------------------------------------------------------------------------------------

    async def claim(self, cell: CellRegistration, identity: CellIdentity) -> None:
        def act() -> None:
            found = self.cell(cell)
            if found.identity not in (None, identity):
                raise Terminal("Conflict", "the cell belongs to somebody else")
            found.identity = identity

        self._write("claim", act)

    async def create_collection(self, cell: CellRegistration, design: CollectionDesign) -> None:
        def act() -> None:
            server, metadata = self.cell(cell), dict(design.metadata)
            there = server.collections.get(design.name)
            keys = (KEY_FLEET, KEY_UID, KEY_GENERATION)
            if there is not None and any(there.metadata.get(key) != metadata.get(key) for key in keys):
                raise Terminal("Conflict", f"{design.name} is somebody else's")
            if design.name in server.aliases:
                raise Terminal("Conflict", f"{design.name} is an alias")
            if there is None:
                made = FakeCollection(design, metadata, dict(design.dense), design.strict)
                server.collections[design.name] = made

        self._write(f"create {design.name}", act)

    async def create_index(self, cell: CellRegistration, collection: str, field: str, kind: str) -> None:
        def act() -> None:
            found = self._there(cell, collection)
            self._must_own(found, f"index on {collection}")
            found.indexes[field] = kind

        self._write(f"index {field} of {collection}", act)

    async def point_alias(self, cell: CellRegistration, alias: str, collection: str) -> None:
        def act() -> None:
            server = self.cell(cell)
            self._must_own(self._there(cell, collection), f"alias {alias} to {collection}")
            before = server.resolve(alias)
            if before is not None:
                self._must_own(before, f"alias {alias} away from {server.aliases[alias]}")
            if alias in server.collections:
                raise Terminal("Conflict", f"{alias} is a collection")
            if "@" in alias and before is not None and server.aliases[alias] != collection:
                self._must_not_be_named(server, alias, f"alias {alias} moved while it is named")
            server.aliases[alias] = collection

        self._write(f"point {alias} to {collection}", act)

    async def remove_alias(self, cell: CellRegistration, alias: str) -> None:
        def act() -> None:
            found = self.cell(cell).resolve(alias)
            if found is not None:
                self._must_own(found, f"remove alias {alias}")
            self.cell(cell).aliases.pop(alias, None)

        self._write(f"remove {alias}", act)

    async def patch_metadata(
        self, cell: CellRegistration, collection: str, metadata: Mapping[str, str | None], strict: StrictMode | None
    ) -> None:
        def act() -> None:
            found = self._there(cell, collection)
            if not self._handed_over(cell, found, metadata):
                self._must_own(found, f"patch {collection}")
            for key, value in metadata.items():
                found.metadata.pop(key, None)
                if value is not None:
                    found.metadata[key] = value
            if strict is not None:
                found.strict = strict

        self._write(f"patch {collection}", act)

    async def add_vector(self, cell: CellRegistration, collection: str, vector: str, dimension: int) -> None:
        def act() -> None:
            found = self._there(cell, collection)
            self._must_own(found, f"add {vector} to {collection}")
            if found.dense.setdefault(vector, dimension) != dimension:
                raise Transient(f"{vector} has another size")

        self._write(f"add {vector} to {collection}", act)

    async def remove_vector(self, cell: CellRegistration, collection: str, vector: str) -> None:
        def act() -> None:
            found = self._there(cell, collection)
            self._must_own(found, f"remove {vector} of {collection}")
            if vector in _named_vectors(found):
                self.broken.append(f"removed {vector}, which {collection} names")
            found.dense.pop(vector, None)
            for point in found.points.values():
                point.versions.pop(vector, None)

        self._write(f"remove {vector} of {collection}", act)

    async def drop_collection(self, cell: CellRegistration, collection: str) -> None:
        def act() -> None:
            server = self.cell(cell)
            found = server.collections.get(collection)
            if found is None:
                return
            self._must_own(found, f"drop {collection}")
            for alias in [name for name, target in server.aliases.items() if target == collection]:
                if "@" not in alias:
                    self.broken.append(f"dropped {collection}, which {alias} points to")
                self._must_not_be_named(server, alias, f"dropped {collection}, whose side is named")
                del server.aliases[alias]
            del server.collections[collection]

        self._write(f"drop {collection}", act)

    # -- within ------------------------------------------------------------------------------------------------

    def _write(self, name: str, act: Callable[[], None]) -> None:
        self.writes.append(name)
        self._faults.through(name, act)

    def _there(self, cell: CellRegistration, collection: str) -> FakeCollection:
        found = self.cell(cell).resolve(collection)
        if found is None:
            raise Transient(f"404 {collection}")
        return found

    def _handed_over(self, cell: CellRegistration, found: FakeCollection, values: Mapping[str, str | None]) -> bool:
        """Whether a patch writes a living owner over a gone one of its very name, or over nobody where it may."""
        if values.get(KEY_UID) not in self._uids():
            return False
        if not found.metadata:
            return found.design.name in cell.adoptable and values.get(KEY_FLEET) == self._fleet
        same = all(values.get(key, found.metadata.get(key)) == found.metadata.get(key) for key in SAME_NAME)
        return same and found.metadata.get(KEY_FLEET) == self._fleet and found.metadata.get(KEY_UID) not in self._uids()

    def _must_own(self, found: FakeCollection, what: str) -> None:
        if found.metadata.get(KEY_FLEET) != self._fleet or found.metadata.get(KEY_UID) not in self._uids():
            self.broken.append(f"{what}: not ours")

    def _must_not_be_named(self, server: FakeCell, side: str, what: str) -> None:
        live = server.resolve(side.split("@")[0])
        if live is None:
            return
        named = [live.binding(key) for key in (KEY_PENDING, KEY_PREVIOUS)]
        if any(item is not None and item.side == side for item in named):
            self.broken.append(what)


def outlined(found: CollectionState) -> CollectionOutline:
    """As much of a collection as the bulk read tells."""
    digest = hash(str((found.dense, found.strict, sorted(found.metadata.items()))))
    return CollectionOutline(
        found.name, digest, found.dense, found.sparse, found.shards, found.replicas, found.strict, found.metadata
    )


class FakeRegister:
    """`TokenRegister` over `FakeCell`s."""

    def __init__(self, cells: FakeCells, faults: Faults) -> None:
        self._cells = cells
        self._faults = faults

    async def read(self, cell: CellRegistration, collection: str, uid: str, *, exists: bool) -> RegisterState:
        server = self._cells.cell(cell)
        grants = server.grants if exists else None
        if grants is None:
            return RegisterState(exists=False)
        own = tuple(grant for grant in grants.values() if grant.uid == uid)
        return self._faults.through("read register", lambda: RegisterState(True, server.register_owner, own))

    async def prepare(self, cell: CellRegistration, collection: str, owner: CellIdentity, replicas: int) -> None:
        def act() -> None:
            server = self._cells.cell(cell)
            if server.grants is None:
                server.grants, server.register_owner = {}, owner
            if server.register_owner != owner:
                raise Terminal("Conflict", f"{collection} is somebody else's")

        self._write("make register", act)

    async def grant(self, cell: CellRegistration, collection: str, grants: Sequence[TokenGrant]) -> None:
        def act() -> None:
            there = self._cells.cell(cell).grants
            if there is None:
                raise Transient(f"404 {collection}")
            there.update({grant.id: grant for grant in grants})

        self._write("grant tokens", act)

    async def revoke(self, cell: CellRegistration, collection: str, ids: Sequence[str]) -> None:
        def act() -> None:
            for ident in ids:
                (self._cells.cell(cell).grants or {}).pop(ident, None)

        self._write("revoke tokens", act)

    def _write(self, name: str, act: Callable[[], None]) -> None:
        self._cells.writes.append(name)
        self._faults.through(name, act)


def _named_vectors(found: FakeCollection) -> set[str | None]:
    bindings = [found.binding(key) for key in (KEY_BINDING, KEY_PENDING, KEY_PREVIOUS)]
    return {item.vector for item in bindings if item is not None}


def _state(found: FakeCollection) -> CollectionState:
    return CollectionState(
        name=found.design.name,
        points=len(found.points),
        dense=dict(found.dense),
        sparse=frozenset(found.design.sparse),
        indexes=dict(found.indexes),
        shards=found.design.shards,
        replicas=found.design.replicas,
        strict=found.strict,
        metadata=dict(found.metadata),
        slice=found.slice,
        layout=found.design.layout,
    )
