"""Writes to every side that a tenant has, with one version a batch.

While a rebuild is under way, and until its rollback window has ended, a tenant has two sides: two collections (each
written by its own alias, which no switch moves) or two vectors of one point (a point is always written with all of
them, since a PUT that names one removes the others). A write is acknowledged when the bound side and the side that is
being filled have it; the previous side is written too, and a write that misses it says so. Another collection is
written before them, and what it missed is marked on the bound side, point by point, with the write itself: the operator
counts the marks, so that a side which lacks an update or a delete is not taken for one to go back to. Whenever a
gateway dies, the bound side is ahead of the previous one only where it says so. That costs no request more, only that
for as long as there is such a side two follow one another. The next write of a product that reaches both replaces its
payload, and with it the mark. A previous side that cannot be reached at all, such as one in a tier that the caller's
token does not open, is one that every write misses.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.api.retrieval import DELETED_KEY, ID_KEY, MISSED_KEY, VERSION_KEY, missed_mark
from searchops_workers.encoders.errors import EncoderError
from searchops_workers.gateway.bindings import unknown_version
from searchops_workers.gateway.cells import Gone
from searchops_workers.gateway.doors import TierMove
from searchops_workers.gateway.problems import Problem
from searchops_workers.retrieval.analyser import AnalyserVersionUnknown
from searchops_workers.retrieval.documents import document_of, render
from searchops_workers.retrieval.scope import NewPoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from searchops.api.retrieval import Binding
    from searchops_workers.gateway.bindings import TenantBinding
    from searchops_workers.gateway.bodies import Item
    from searchops_workers.gateway.cells import Cells
    from searchops_workers.gateway.doors import Door
    from searchops_workers.gateway.encoders import BindingEncoder
    from searchops_workers.retrieval.scope import Scope

Vectors = list[list[float]]
EncodingKey = tuple[str | None, str | None, str]


@dataclass(frozen=True, slots=True)
class SidePlan:
    """One side that is written.

    Attributes:
        side: its name, ``<alias>@a`` or ``<alias>@b``, or the tenant's alias.
        bindings: whose vectors a point there carries; the first is the one that searches use, or will use.
        required: whether a write without it must not be acknowledged.
        optional_vectors: dense vectors that only a rollback needs.
    """

    side: str
    bindings: tuple[Binding, ...]
    required: bool
    optional_vectors: frozenset[str]


@dataclass(frozen=True, slots=True)
class Batch:
    """The points of one request on one side."""

    plan: SidePlan
    scope: Scope
    points: list[NewPoint]


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What was written.

    Attributes:
        missed_previous: why the previous side has not got it; empty where it has, or where there is none.
        out_of_reach: whether no write can reach the previous side, so that reading the bindings again changes nothing.
    """

    version: int
    sides: tuple[str, ...]
    missed_previous: str = ""
    out_of_reach: bool = False


class Versions:
    """Versions of batches: microseconds of the wall clock, never the same or an older one twice in one process."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._clock = wall_clock
        self._last = 0

    def next(self) -> int:
        """The next version; it fits exactly into the doubles that the database compares ranges with."""
        self._last = max(self._last + 1, int(self._clock() * 1_000_000))
        return self._last


def plan_sides(alias: str, tenant: TenantBinding) -> tuple[SidePlan, ...]:
    """Which sides a write goes to, and with which vectors; the required ones first, the bound one before all."""
    needed = [binding for binding in (tenant.binding, tenant.pending) if binding is not None]
    sides: dict[str, list[Binding]] = {}
    for binding in (*needed, *((tenant.previous,) if tenant.previous is not None else ())):
        sides.setdefault(binding.side or alias, []).append(binding)
    required = {binding.side or alias for binding in needed}
    wanted = {(binding.side or alias, binding.vector) for binding in needed}
    plans = []
    for side, bindings in sides.items():
        optional = {b.vector for b in bindings if b.vector and (side, b.vector) not in wanted}
        plans.append(SidePlan(side, tuple(bindings), side in required, frozenset(optional)))
    return tuple(sorted(plans, key=lambda plan: not plan.required))


def version_guard(version: int) -> models.Filter:
    """Only what is older may be replaced; a point without a version is older than all."""
    return models.Filter(
        should=[
            models.FieldCondition(key=VERSION_KEY, range=models.Range(lt=version)),
            models.IsEmptyCondition(is_empty=models.PayloadField(key=VERSION_KEY)),
        ]
    )


def tombstone(product: str, version: int) -> NewPoint:
    """What a delete writes: a point without vectors, which no leg finds and a late retry cannot bring back."""
    return NewPoint(product, {}, {ID_KEY: product, VERSION_KEY: version, DELETED_KEY: version})


class Writer:
    """Writes of products and tombstones.

    Args:
        cells: where the sides are.
        encoder: gives the dense vectors.
        versions: gives each request its version.
        batch: points that are encoded and written at once.
    """

    def __init__(self, cells: Cells, encoder: BindingEncoder, versions: Versions, *, batch: int) -> None:
        self._cells = cells
        self._encoder = encoder
        self._versions = versions
        self._batch = batch

    async def put(self, door: Door, tenant: TenantBinding, items: Sequence[Item]) -> WriteOutcome:
        """Insert or replace products on every side.

        Raises:
            Problem: with how many items were acknowledged before; what was written on one side only is repaired by
                sending the request again. `TierMove` where a side that is being filled is out of reach.
        """
        version = self._versions.next()
        sides, unreachable = _within_reach(door, plan_sides(door.alias, tenant))

        async def part(batch: Sequence[Item]) -> WriteOutcome:
            vectors, missing = await self._encode([plan for plan, _ in sides], batch)
            try:
                batches = [Batch(plan, scope, _points(plan, batch, vectors, version)) for plan, scope in sides]
            except AnalyserVersionUnknown as error:
                raise unknown_version(error) from error
            return await self._write(door, tenant, batches, version, missing, unreachable)

        return await self._in_batches(items, part)

    async def delete(self, door: Door, tenant: TenantBinding, items: Sequence[Item]) -> WriteOutcome:
        """Put a tombstone in the place of every product, on every side; raises as `put`."""
        version = self._versions.next()
        sides, unreachable = _within_reach(door, plan_sides(door.alias, tenant))

        async def part(batch: Sequence[Item]) -> WriteOutcome:
            points = [tombstone(item.id, version) for item in batch]
            batches = [Batch(plan, scope, points) for plan, scope in sides]
            return await self._write(door, tenant, batches, version, "", unreachable)

        return await self._in_batches(items, part)

    async def _in_batches(
        self, items: Sequence[Item], write: Callable[[Sequence[Item]], Awaitable[WriteOutcome]]
    ) -> WriteOutcome:
        outcomes: list[WriteOutcome] = []
        for start in range(0, len(items), self._batch):
            try:
                outcomes.append(await write(items[start : start + self._batch]))
            except Problem as problem:
                left = [{"index": item.index, "id": item.id} for item in items[start:]]
                problem.extra |= {"acknowledged": start, "unacknowledged": left}
                raise
        missed = next((outcome.missed_previous for outcome in outcomes if outcome.missed_previous), "")
        return WriteOutcome(outcomes[0].version, outcomes[0].sides, missed, outcomes[0].out_of_reach)

    async def _encode(self, plans: Sequence[SidePlan], items: Sequence[Item]) -> tuple[dict[EncodingKey, Vectors], str]:
        """Every encoding that is wanted, once; what only a rollback needs may fail."""
        wanted: dict[EncodingKey, tuple[Binding, bool]] = {}
        for plan in plans:
            for binding in _dense(plan):
                key = _encoding(binding)
                needed = plan.required and binding.vector not in plan.optional_vectors
                wanted[key] = (binding, needed or (key in wanted and wanted[key][1]))
        results = await asyncio.gather(
            *(self._encoder.encode(binding, _texts(binding, items)) for binding, _ in wanted.values()),
            return_exceptions=True,
        )
        vectors: dict[EncodingKey, Vectors] = {}
        missing = ""
        for (key, (binding, needed)), result in zip(wanted.items(), results, strict=True):
            if not isinstance(result, BaseException):
                vectors[key] = result
            elif not isinstance(result, EncoderError):
                raise result
            elif needed:
                raise Problem(
                    503,
                    f"{binding.encoder} did not encode the batch ({result}); send it again",
                    code="encoder-unavailable",
                    retry_after=2,
                ) from result
            else:
                missing = f"{binding.encoder}: {result}"
        return vectors, missing

    async def _write(
        self, door: Door, tenant: TenantBinding, batches: Sequence[Batch], version: int, missing: str, missed: str
    ) -> WriteOutcome:
        out_of_reach = bool(missed)
        needed = [batch for batch in batches if batch.plan.required]
        others = [batch for batch in batches if not batch.plan.required]
        written: list[str] = []
        for batch, result in await self._upserts(door, others, version):
            if result is None:
                written.append(batch.plan.side)
            elif isinstance(result, Problem):
                missed = missed or f"{batch.plan.side}: {result.detail}"
            else:
                raise result
        if missed and tenant.previous is not None:
            mark = missed_mark(tenant.previous)
            needed[0] = replace(needed[0], points=[_marked(point, mark) for point in needed[0].points])
        for batch, result in await self._upserts(door, needed, version):
            if isinstance(result, Gone) and batch.plan is not needed[0].plan:
                raise TierMove(batch.plan.side) from result
            if result is not None:
                raise result
        sides = (*(batch.plan.side for batch in needed), *written)
        return WriteOutcome(version, sides, missing or missed, out_of_reach)

    async def _upserts(
        self, door: Door, batches: Sequence[Batch], version: int
    ) -> list[tuple[Batch, BaseException | None]]:
        """All at once; what became of each."""
        results = await asyncio.gather(
            *(self._upsert(door, batch.scope, batch.points, version) for batch in batches), return_exceptions=True
        )
        return list(zip(batches, results, strict=True))

    async def _upsert(self, door: Door, scope: Scope, points: list[NewPoint], version: int) -> None:
        async with self._cells.calling(door) as client:
            await scope.upsert(client, points, version_guard(version))


def _within_reach(door: Door, plans: Sequence[SidePlan]) -> tuple[list[tuple[SidePlan, Scope]], str]:
    """Each side with its points, and why the previous one cannot be written at all.

    Raises:
        TierMove: a side that must not miss the write is out of reach.
    """
    sides = []
    unreachable = ""
    for plan in plans:
        try:
            sides.append((plan, door.scope(plan.side)))
        except TierMove:
            if plan.required:
                raise
            unreachable = f"{plan.side} is out of reach: it stands in another tier than the bound side"
    return sides, unreachable


def _points(plan: SidePlan, items: Sequence[Item], vectors: dict[EncodingKey, Vectors], version: int) -> list[NewPoint]:
    points = []
    for row, item in enumerate(items):
        named: dict[str, Any] = {}
        first = document_of(plan.bindings[0], item.product, version=version)
        for binding in plan.bindings:
            document = first if binding is plan.bindings[0] else document_of(binding, item.product)
            for name, vector in document.lexical.items():
                named.setdefault(name, models.SparseVector(indices=list(vector.indices), values=list(vector.values)))
        for binding in _dense(plan):
            encoded = vectors.get(_encoding(binding))
            if encoded is not None and binding.vector is not None:
                named[binding.vector] = encoded[row]
        points.append(NewPoint(first.product_id, named, first.payload))
    return points


def _marked(point: NewPoint, mark: str) -> NewPoint:
    return replace(point, payload={**point.payload, MISSED_KEY: mark})


def _dense(plan: SidePlan) -> list[Binding]:
    """One binding for each dense vector; the first that names it decides who encodes."""
    found: dict[str, Binding] = {}
    for binding in plan.bindings:
        if binding.encoder is not None and binding.vector is not None:
            found.setdefault(binding.vector, binding)
    return list(found.values())


def _encoding(binding: Binding) -> EncodingKey:
    return binding.encoder, binding.manifest_digest, binding.document


def _texts(binding: Binding, items: Sequence[Item]) -> list[str]:
    return [render(binding.document, item.product) for item in items]
