"""Writes to every side that a tenant has, with one version a batch.

While a rebuild is under way, and until its rollback window has ended, a tenant has two sides: two collections (each
written by its own alias, which no switch moves) or two vectors of one point (a point is always written with all of
them, since a PUT that names one removes the others). A write is acknowledged when the bound side and the side that is
being filled have it; the previous side is written too, and a write that misses it says so. Another collection is
written before them, and what it missed is marked on the bound side, point by point, with the write itself: the operator
counts the marks, so that a side which lacks an update or a delete is not taken for one to go back to. Whenever a
gateway dies, the bound side is ahead of the previous one only where it says so. That costs no request more, only that
for as long as there is such a side two follow one another. The next write of a product that reaches both replaces its
payload, and with it the mark.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from searchops.api.retrieval import DELETED_KEY, ID_KEY, MISSED_KEY, VERSION_KEY, missed_mark, point_id
from searchops_workers.encoders.errors import EncoderError
from searchops_workers.gateway.bindings import unknown_version
from searchops_workers.gateway.problems import Problem
from searchops_workers.retrieval.analyser import AnalyserVersionUnknown
from searchops_workers.retrieval.documents import document_of, render

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from searchops.api.retrieval import Binding
    from searchops_workers.gateway.bindings import TenantBinding
    from searchops_workers.gateway.bodies import Item
    from searchops_workers.gateway.callers import Caller
    from searchops_workers.gateway.cells import Cells
    from searchops_workers.gateway.encoders import BindingEncoder

Vectors = list[list[float]]
EncodingKey = tuple[str | None, str | None, str]


@dataclass(frozen=True, slots=True)
class SidePlan:
    """One collection that is written.

    Attributes:
        collection: the side's own alias.
        bindings: whose vectors a point there carries; the first is the one that searches use, or will use.
        required: whether a write without it must not be acknowledged.
        optional_vectors: dense vectors that only a rollback needs.
    """

    collection: str
    bindings: tuple[Binding, ...]
    required: bool
    optional_vectors: frozenset[str]


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What was written.

    Attributes:
        missed_previous: why the previous side has not got it; empty where it has, or where there is none.
    """

    version: int
    sides: tuple[str, ...]
    missed_previous: str = ""


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
    """Which collections a write goes to, and with which vectors; the required ones first."""
    needed = [binding for binding in (tenant.binding, tenant.pending) if binding is not None]
    sides: dict[str, list[Binding]] = {}
    for binding in (*needed, *((tenant.previous,) if tenant.previous is not None else ())):
        sides.setdefault(binding.side or alias, []).append(binding)
    required = {binding.side or alias for binding in needed}
    wanted = {(binding.side or alias, binding.vector) for binding in needed}
    plans = []
    for collection, bindings in sides.items():
        optional = {b.vector for b in bindings if b.vector and (collection, b.vector) not in wanted}
        plans.append(SidePlan(collection, tuple(bindings), collection in required, frozenset(optional)))
    return tuple(sorted(plans, key=lambda plan: not plan.required))


def version_guard(version: int) -> models.Filter:
    """Only what is older may be replaced; a point without a version is older than all."""
    return models.Filter(
        should=[
            models.FieldCondition(key=VERSION_KEY, range=models.Range(lt=version)),
            models.IsEmptyCondition(is_empty=models.PayloadField(key=VERSION_KEY)),
        ]
    )


def tombstone(product: str, version: int) -> models.PointStruct:
    """What a delete writes: a point without vectors, which no leg finds and a late retry cannot bring back."""
    return models.PointStruct(
        id=point_id(product), vector={}, payload={ID_KEY: product, VERSION_KEY: version, DELETED_KEY: version}
    )


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

    async def put(self, caller: Caller, tenant: TenantBinding, items: Sequence[Item]) -> WriteOutcome:
        """Insert or replace products on every side.

        Raises:
            Problem: with how many items were acknowledged before; what was written on one side only is repaired by
                sending the request again.
        """
        version = self._versions.next()
        plans = plan_sides(caller.alias, tenant)

        async def part(batch: Sequence[Item]) -> WriteOutcome:
            vectors, missing = await self._encode(plans, batch)
            try:
                points = [(plan, self._points(plan, batch, vectors, version)) for plan in plans]
            except AnalyserVersionUnknown as error:
                raise unknown_version(error) from error
            return await self._write(caller, tenant, points, version, missing)

        return await self._in_batches(items, part)

    async def delete(self, caller: Caller, tenant: TenantBinding, items: Sequence[Item]) -> WriteOutcome:
        """Put a tombstone in the place of every product, on every side; raises as `put`."""
        version = self._versions.next()
        plans = plan_sides(caller.alias, tenant)

        async def part(batch: Sequence[Item]) -> WriteOutcome:
            points = [tombstone(item.id, version) for item in batch]
            return await self._write(caller, tenant, [(plan, points) for plan in plans], version, "")

        return await self._in_batches(items, part)

    async def _in_batches(
        self, items: Sequence[Item], write: Callable[[Sequence[Item]], Awaitable[WriteOutcome]]
    ) -> WriteOutcome:
        outcomes: list[WriteOutcome] = []
        for start in range(0, len(items), self._batch):
            try:
                outcomes.append(await write(items[start : start + self._batch]))
            except Problem as problem:
                problem.extra["acknowledged"] = start
                raise
        missed = next((outcome.missed_previous for outcome in outcomes if outcome.missed_previous), "")
        return WriteOutcome(outcomes[0].version, outcomes[0].sides, missed)

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

    def _points(
        self, plan: SidePlan, items: Sequence[Item], vectors: dict[EncodingKey, Vectors], version: int
    ) -> list[models.PointStruct]:
        points = []
        for row, item in enumerate(items):
            named: dict[str, Any] = {}
            first = document_of(plan.bindings[0], item.product, version=version)
            for binding in plan.bindings:
                document = first if binding is plan.bindings[0] else document_of(binding, item.product)
                for name, vector in document.lexical.items():
                    named.setdefault(
                        name, models.SparseVector(indices=list(vector.indices), values=list(vector.values))
                    )
            for binding in _dense(plan):
                encoded = vectors.get(_encoding(binding))
                if encoded is not None and binding.vector is not None:
                    named[binding.vector] = encoded[row]
            points.append(models.PointStruct(id=first.id, vector=named, payload=dict(first.payload)))
        return points

    async def _write(
        self,
        caller: Caller,
        tenant: TenantBinding,
        batches: Sequence[tuple[SidePlan, list[models.PointStruct]]],
        version: int,
        missing: str,
    ) -> WriteOutcome:
        needed = [(plan, points) for plan, points in batches if plan.required]
        others = [(plan, points) for plan, points in batches if not plan.required]
        written: list[str] = []
        missed = ""
        for collection, result in await self._upserts(caller, others, version):
            if result is None:
                written.append(collection)
            elif isinstance(result, Problem):
                missed = missed or f"{collection}: {result.detail}"
            else:
                raise result
        if missed and tenant.previous is not None:
            bound, points = needed[0]
            needed[0] = (bound, [_marked(point, missed_mark(tenant.previous)) for point in points])
        for _, result in await self._upserts(caller, needed, version):
            if result is not None:
                raise result
        sides = (*(plan.collection for plan, _ in needed), *written)
        return WriteOutcome(version, sides, missing or missed)

    async def _upserts(
        self, caller: Caller, batches: Sequence[tuple[SidePlan, list[models.PointStruct]]], version: int
    ) -> list[tuple[str, BaseException | None]]:
        """All at once; what became of each."""
        results = await asyncio.gather(
            *(self._upsert(caller, plan.collection, points, version) for plan, points in batches),
            return_exceptions=True,
        )
        return [(plan.collection, result) for (plan, _), result in zip(batches, results, strict=True)]

    async def _upsert(self, caller: Caller, collection: str, points: list[models.PointStruct], version: int) -> None:
        async with self._cells.calling(caller) as client:
            await client.upsert(collection, points, wait=True, update_filter=version_guard(version))


def _marked(point: models.PointStruct, mark: str) -> models.PointStruct:
    return point.model_copy(update={"payload": {**(point.payload or {}), MISSED_KEY: mark}})


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
