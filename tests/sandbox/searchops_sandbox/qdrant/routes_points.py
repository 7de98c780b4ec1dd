"""REST routes of points, payload indexes and named vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdrant_client.http import models

from searchops_sandbox.qdrant.access import Need
from searchops_sandbox.qdrant.errors import ApiError, not_found

if TYPE_CHECKING:
    from collections.abc import Callable

    from searchops_sandbox.qdrant.calls import Call


def create_index(call: Call) -> Any:
    """`PUT /collections/{name}/index`."""
    collection = call.service.collection(call.access, call.name, Need.MANAGE)
    body = call.body(models.CreateFieldIndex)
    collection.create_index(body.field_name, body.field_schema)
    return _done(call, collection)


def delete_index(call: Call) -> Any:
    """`DELETE /collections/{name}/index/{field}`."""
    collection = call.service.collection(call.access, call.name, Need.MANAGE)
    collection.delete_index(call.request.path_params["field"])
    return _done(call, collection)


def create_vector(call: Call) -> Any:
    """`PUT /collections/{name}/vectors/{vector}`."""
    collection = call.service.collection(call.access, call.name, Need.MANAGE)
    collection.create_vector(call.request.path_params["vector"], call.body(models.VectorNameConfig))
    return _done(call, collection)


def delete_vector(call: Call) -> Any:
    """`DELETE /collections/{name}/vectors/{vector}`."""
    collection = call.service.collection(call.access, call.name, Need.MANAGE)
    collection.delete_vector(call.request.path_params["vector"])
    return _done(call, collection)


def _done(call: Call, collection: Any) -> dict[str, Any]:
    return {"operation_id": collection.next_operation(), "status": "completed" if call.wait else "acknowledged"}


def upsert(call: Call) -> Any:
    """`PUT /collections/{name}/points`."""
    return call.service.upsert(call.access, call.name, call.body(models.PointInsertOperations), call.wait)


def retrieve(call: Call) -> Any:
    """`POST /collections/{name}/points`."""
    return call.service.retrieve(call.access, call.name, call.body(models.PointRequest))


def retrieve_one(call: Call) -> Any:
    """`GET /collections/{name}/points/{id}`."""
    raw = call.request.path_params["ident"]
    ident: int | str = int(raw) if raw.isdecimal() else raw
    found = call.service.retrieve(
        call.access, call.name, models.PointRequest(ids=[ident], with_payload=True, with_vector=True)
    )
    if not found:
        raise not_found(f"Point with id {raw} does not exists!")
    return found[0]


def delete(call: Call) -> Any:
    """`POST /collections/{name}/points/delete`."""
    return call.service.delete(call.access, call.name, call.body(models.PointsSelector), call.wait)


def set_payload(call: Call) -> Any:
    """`POST /collections/{name}/points/payload`."""
    return call.service.set_payload(call.access, call.name, call.body(models.SetPayload), call.wait)


def overwrite_payload(call: Call) -> Any:
    """`PUT /collections/{name}/points/payload`."""
    return call.service.set_payload(call.access, call.name, call.body(models.SetPayload), call.wait, overwrite=True)


def delete_payload(call: Call) -> Any:
    """`POST /collections/{name}/points/payload/delete`."""
    return call.service.delete_payload(call.access, call.name, call.body(models.DeletePayload), call.wait)


def clear_payload(call: Call) -> Any:
    """`POST /collections/{name}/points/payload/clear`."""
    return call.service.clear_payload(call.access, call.name, call.body(models.PointsSelector), call.wait)


def update_vectors(call: Call) -> Any:
    """`PUT /collections/{name}/points/vectors`."""
    return call.service.update_vectors(call.access, call.name, call.body(models.UpdateVectors), call.wait)


def delete_vectors(call: Call) -> Any:
    """`POST /collections/{name}/points/vectors/delete`."""
    return call.service.delete_vectors(call.access, call.name, call.body(models.DeleteVectors), call.wait)


def batch(call: Call) -> Any:
    """`POST /collections/{name}/points/batch`."""
    return call.service.batch(call.access, call.name, call.body(models.UpdateOperations), call.wait)


def scroll(call: Call) -> Any:
    """`POST /collections/{name}/points/scroll`."""
    _check_timeout(call)
    return call.service.scroll(call.access, call.name, call.body(models.ScrollRequest, models.ScrollRequest()))


def count(call: Call) -> Any:
    """`POST /collections/{name}/points/count`."""
    _check_timeout(call)
    body = call.body(models.CountRequest, models.CountRequest())
    return {"count": call.service.count(call.access, call.name, body)}


def query(call: Call) -> Any:
    """`POST /collections/{name}/points/query`."""
    _check_timeout(call)
    (points,) = call.service.query(call.access, call.name, [call.body(models.QueryRequest)])
    return {"points": points}


def query_batch(call: Call) -> Any:
    """`POST /collections/{name}/points/query/batch`."""
    _check_timeout(call)
    searches = call.body(models.QueryRequestBatch).searches
    return [{"points": points} for points in call.service.query(call.access, call.name, searches, batch=True)]


def facet(call: Call) -> Any:
    """`POST /collections/{name}/facet`."""
    _check_timeout(call)
    return {"hits": call.service.facet(call.access, call.name, call.body(models.FacetRequest))}


def _check_timeout(call: Call) -> None:
    raw = call.request.query_params.get("timeout")
    if raw is None:
        return
    if not raw.isdecimal() or int(raw) < 1:
        raise ApiError(422, f"Validation error in query: [timeout: value {raw} invalid, must be 1 or larger]")
    call.service.collection(call.access, call.name, Need.READ).strict.limit(int(raw), "max_timeout", "timeout")


_POINTS = "/collections/{name}/points"
ROUTES: list[tuple[str, str, Callable[[Call], Any]]] = [
    ("PUT", "/collections/{name}/index", create_index),
    ("DELETE", "/collections/{name}/index/{field:path}", delete_index),
    ("PUT", "/collections/{name}/vectors/{vector}", create_vector),
    ("DELETE", "/collections/{name}/vectors/{vector}", delete_vector),
    ("PUT", _POINTS, upsert),
    ("POST", _POINTS, retrieve),
    ("POST", _POINTS + "/delete", delete),
    ("POST", _POINTS + "/payload", set_payload),
    ("PUT", _POINTS + "/payload", overwrite_payload),
    ("POST", _POINTS + "/payload/delete", delete_payload),
    ("POST", _POINTS + "/payload/clear", clear_payload),
    ("PUT", _POINTS + "/vectors", update_vectors),
    ("POST", _POINTS + "/vectors/delete", delete_vectors),
    ("POST", _POINTS + "/batch", batch),
    ("POST", _POINTS + "/scroll", scroll),
    ("POST", _POINTS + "/count", count),
    ("POST", _POINTS + "/query", query),
    ("POST", _POINTS + "/query/batch", query_batch),
    ("POST", "/collections/{name}/facet", facet),
    ("GET", _POINTS + "/{ident}", retrieve_one),
]
