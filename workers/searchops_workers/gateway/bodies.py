"""Request bodies: bounded while they are read, checked by field, and bulk items judged one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from searchops_workers.gateway.problems import Problem
from searchops_workers.retrieval.documents import RESERVED, ProductError, product_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from searchops.api.retrieval import Binding

NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
Scalar = str | int | float | bool


class Bounds(BaseModel):
    """A range of numbers."""

    model_config = ConfigDict(extra="forbid")

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


class SearchBody(BaseModel):
    """What a search asks for.

    Attributes:
        filters: by field: a value, several of which one must hold, or bounds.
        explain: add why the query took its legs.
    """

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1, max_length=512)]
    limit: Annotated[int, Field(ge=1)] = 10
    filters: Annotated[
        dict[str, Scalar | Annotated[list[Scalar], Field(min_length=1, max_length=64)] | Bounds], Field(max_length=16)
    ] = Field(default_factory=dict)
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One valid item of a bulk request."""

    index: int
    id: str
    product: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RejectedItem:
    """One item that was not written, and why."""

    index: int
    id: str | None
    detail: str

    def document(self) -> dict[str, Any]:
        """As the answer lists it."""
        return {"index": self.index, "id": self.id, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Bulk:
    """A bulk request, item by item.

    Attributes:
        superseded: positions of items that a later item of the same id replaces.
    """

    items: tuple[Item, ...]
    rejected: tuple[RejectedItem, ...]
    superseded: tuple[int, ...]


async def read_body(request: Request, limit: int) -> bytes:
    """The body, never more than `limit` bytes of it.

    Raises:
        Problem: 413.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(int(declared), limit)
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > limit:
            raise _too_large(len(parts), limit)
    return bytes(parts)


def _too_large(seen: int, limit: int) -> Problem:
    return Problem(
        413, f"the body has {seen} bytes or more; wanted at most {limit}; send smaller batches", code="body-too-large"
    )


def parse_search(body: bytes, max_limit: int) -> SearchBody:
    """A search.

    Raises:
        Problem: 400 where it is no JSON, 422 naming the field otherwise.
    """
    try:
        parsed = SearchBody.model_validate(_json(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Problem(422, f"{where}: {first['msg']}", code="invalid-search", extra={"field": where}) from error
    if parsed.limit > max_limit:
        raise Problem(
            422, f"limit is {parsed.limit}; wanted at most {max_limit}", code="invalid-search", extra={"field": "limit"}
        )
    return parsed


def check_filters(body: SearchBody, binding: Binding) -> dict[str, Any]:
    """The filters, if every field is indexed.

    Raises:
        Problem: 422 naming the field and those that there are.
    """
    known = {*binding.fields.filter, *binding.fields.code}.difference(RESERVED)
    for name in body.filters:
        if name not in known:
            raise Problem(
                422,
                f"filters.{name}: no field of role Filter or Code; the tenant has {', '.join(sorted(known)) or 'none'}",
                code="unknown-filter",
                extra={"field": f"filters.{name}"},
            )
    return {
        name: value.model_dump(exclude_none=True) if isinstance(value, Bounds) else value
        for name, value in body.filters.items()
    }


def parse_bulk(body: bytes, content_type: str, kind: Literal["products", "ids"], max_products: int) -> Bulk:
    """Items of a bulk request: ``{"products": […]}`` (or ``ids``), a bare list, or one object a line.

    Raises:
        Problem: 400 where the whole body is unreadable, 413 where there are too many items.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media in NDJSON:
        raw = [line for line in body.split(b"\n") if line.strip()]
        _bound(len(raw), max_products)
        return _sorted_out(raw, kind, orjson.loads)
    if media not in ("application/json", ""):
        raise Problem(
            415, f"content type {media!r}; wanted application/json or application/x-ndjson", code="unsupported-media"
        )
    parsed = _json(body)
    items = parsed.get(kind) if isinstance(parsed, dict) else parsed
    if not isinstance(items, list):
        raise Problem(400, f'wanted {{"{kind}": […]}} or a list, or one JSON object a line as NDJSON', code="no-list")
    _bound(len(items), max_products)
    return _sorted_out(items, kind, lambda item: item)


def _bound(seen: int, max_products: int) -> None:
    if seen > max_products:
        raise Problem(
            413,
            f"{seen} items in one request; wanted at most {max_products}; send several requests",
            code="batch-too-large",
            extra={"maxProducts": max_products},
        )
    if seen == 0:
        raise Problem(400, "the request has no item", code="empty-batch")


def _sorted_out(raw: list[Any], kind: str, decode: Callable[[Any], Any]) -> Bulk:
    items: dict[str, Item] = {}
    rejected: list[RejectedItem] = []
    superseded: list[int] = []
    for index, entry in enumerate(raw):
        try:
            value = decode(entry)
            if kind == "ids" and not isinstance(value, dict):
                value = {"id": value}
            product = product_of(value)
        except orjson.JSONDecodeError as error:
            seen = bytes(entry[:60]).decode(errors="replace")
            rejected.append(RejectedItem(index, None, f"{seen!r} is no JSON ({error}); wanted one object a line"))
            continue
        except ProductError as error:
            rejected.append(RejectedItem(index, _id_of(value), str(error)))
            continue
        before = items.pop(product["id"], None)
        if before is not None:
            superseded.append(before.index)
        items[product["id"]] = Item(index, product["id"], product)
    return Bulk(tuple(items.values()), tuple(rejected), tuple(superseded))


def _id_of(value: Any) -> str | None:
    found = value.get("id") if isinstance(value, dict) else None
    return str(found)[:256] if isinstance(found, str | int) else None


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        seen = body[:60].decode(errors="replace")
        raise Problem(400, f"the body {seen!r} is no JSON: {error}", code="no-json") from error
