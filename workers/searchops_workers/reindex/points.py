"""The points that a rebuild may touch: every request of it is made here, within the scope of one side.

A scope is a whole collection or one tenant's slice of a shared one. `Points` cannot be made without one, and what comes
back of a slice is looked at once more, so that whatever a point's id is made to be, a rebuild neither reads nor writes
what is another tenant's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from searchops.api.retrieval import DELETED_KEY, ID_KEY
from searchops.api.shared import TENANT_KEY
from searchops_workers.reindex.patience import patiently
from searchops_workers.retrieval.scope import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from qdrant_client import AsyncQdrantClient

    from searchops.api.tasks import ReindexTask

PAGE = 256
NAMES = [ID_KEY, "id", TENANT_KEY]
"""Payload keys that tell a point's product."""
LONGEST_ID = 256
"""Characters of a product's id that the gateway takes."""


class ForeignPoints(RuntimeError):  # noqa: N818 - named for what is the case
    """The cell gave points of another slice than the one that was asked for."""


def source_of(task: ReindexTask) -> Scope:
    """What is read."""
    if task.source_slice is not None:
        return Scope.of(task.source_slice)
    return Scope.whole(task.source_collection or "")


def target_of(task: ReindexTask) -> Scope:
    """What is written."""
    return Scope.of(task.target_slice) if task.target_slice is not None else Scope.whole(task.target_collection)


def live(*more: models.Condition, lacking: str | None = None) -> models.Filter:
    """Points that are not tombstones.

    Args:
        more: conditions that they meet too.
        lacking: a vector that they do not have.
    """
    there = models.IsEmptyCondition(is_empty=models.PayloadField(key=DELETED_KEY))
    without = None if lacking is None else [models.HasVectorCondition(has_vector=lacking)]
    return models.Filter(must=[there, *more], must_not=without)


class Points:
    """Reads and writes within a scope, each repeated where the cell is busy.

    Args:
        client: with a token that opens the scope's collection.
        scope: outside of which nothing is read or written.
    """

    def __init__(self, client: AsyncQdrantClient, scope: Scope) -> None:
        self._client = client
        self._scope = scope

    async def pages(self, wanted: models.Filter, *, payload: bool = True) -> AsyncIterator[list[models.Record]]:
        """Every page that has points.

        Args:
            wanted: which points of the scope.
            payload: whole; otherwise only what tells a product's id.
        """
        offset: Any = None
        while True:
            found, offset = await self._page(wanted, offset=offset, payload=payload or NAMES)
            if found:
                yield found
            if offset is None:
                return

    async def some(self, wanted: models.Filter, vector: str) -> list[models.Record]:
        """The first page, with one of their vectors."""
        found, _ = await self._page(wanted, offset=None, payload=True, vectors=[vector])
        return found

    async def present(self, ids: Sequence[Any]) -> set[str]:
        """Which of these ids are there, tombstones included."""
        if self._scope.address is not None:
            wanted = models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
            found, _ = await self._page(wanted, offset=None, payload=[TENANT_KEY], limit=len(ids))
            return {str(point.id) for point in found}
        records = await patiently(
            lambda: self._client.retrieve(self._scope.collection, ids, with_payload=False, with_vectors=False)
        )
        return {str(point.id) for point in records}

    async def count(self) -> int:
        """Live points, exactly."""
        scope = self._scope
        wanted = scope.condition(live())
        answer = await patiently(
            lambda: self._client.count(scope.collection, wanted, exact=True, **scope.routing),
        )
        return answer.count

    async def insert(self, points: list[models.PointStruct]) -> None:
        """`insert_only`: whatever is there under one of these ids stays, whosesoever it is."""
        scope = self._scope
        await patiently(
            lambda: self._client.upsert(
                scope.collection, points, wait=True, update_mode=models.UpdateMode.INSERT_ONLY, **scope.routing
            )
        )

    async def add_vector(self, name: str, points: list[models.PointVectors]) -> None:
        """Where the vector is still missing on a living point of the scope.

        A point that was deleted meanwhile answers 404 *after* the others were written.
        """
        scope = self._scope
        missing = scope.condition(live(lacking=name))
        try:
            await patiently(
                lambda: self._client.update_vectors(
                    scope.collection, points, wait=True, update_filter=missing, **scope.routing
                )
            )
        except UnexpectedResponse as error:
            if error.status_code != 404:
                raise

    async def _page(
        self,
        wanted: models.Filter,
        *,
        offset: Any,
        payload: bool | list[str],
        vectors: bool | list[str] = False,
        limit: int = PAGE,
    ) -> tuple[list[models.Record], Any]:
        scope = self._scope
        own = scope.condition(wanted)
        found, following = await patiently(
            lambda: self._client.scroll(
                scope.collection,
                own,
                limit=limit,
                offset=offset,
                with_payload=payload,
                with_vectors=vectors,
                **scope.routing,
            )
        )
        foreign = sum(not scope.holds(point.payload) for point in found)
        if foreign:
            raise ForeignPoints(
                f"{scope.collection}: {foreign} of {len(found)} points that were read are of another slice than the "
                "one that was asked for; nothing of them was used: look at the cell before this is tried again"
            )
        return found, following


@dataclass(frozen=True, slots=True)
class Passage:
    """How a point of the source becomes one of the target.

    Attributes:
        source: where it is.
        target: where it goes. Between two collections of the tenant's own a point that names its product keeps its id,
            whatever that is. One that was adopted does not: it gets the id under which its product is written and
            deleted from then on. A slice's ids are made of its key and the product's id.
    """

    source: Scope
    target: Scope

    def keeps(self, point: models.Record) -> bool:
        """Whether the point goes over as it is."""
        own = self.source.address is None and self.target.address is None
        return own and ID_KEY in (point.payload or {})

    def id_of(self, point: models.Record) -> Any:
        """The id on the target."""
        return point.id if self.keeps(point) else self.target.id_of(product_of(point))

    def payload_of(self, point: models.Record) -> dict[str, Any]:
        """The payload on the target: it names the product, and the slice where there is one."""
        payload = dict(point.payload or {})
        if self.keeps(point):
            return payload
        if self.source.address is not None:
            payload.pop(TENANT_KEY, None)
        return self.placed({**payload, ID_KEY: product_of(point)})

    def placed(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """A payload as it stands on the target."""
        if self.target.address is None:
            return dict(payload)
        return {**payload, TENANT_KEY: self.target.address.key}


def product_of(point: models.Record) -> str:
    """The product's id: as we wrote it; of a point that was adopted what it calls its id, else its own id."""
    payload = point.payload or {}
    if ID_KEY in payload:
        return str(payload[ID_KEY])
    told = payload.get("id")
    usable = isinstance(told, str | int) and not isinstance(told, bool) and 0 < len(str(told).strip()) <= LONGEST_ID
    return str(told if usable else point.id)
