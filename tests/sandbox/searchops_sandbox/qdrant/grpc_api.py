"""The gRPC API: the calls that the product makes, converted by qdrant-client's own conversions."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from qdrant_client import grpc as api
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.http import models

from searchops_sandbox.qdrant.access import Access, Authenticator, Need
from searchops_sandbox.qdrant.errors import ApiError, unsupported

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from searchops_sandbox.qdrant.faults import FaultTable
    from searchops_sandbox.qdrant.service import Service

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_ACCESS: contextvars.ContextVar[Access] = contextvars.ContextVar("access")
_OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


async def _abort(context: Any, error: ApiError) -> None:
    trailers = tuple((name.lower(), value) for name, value in error.headers.items())
    await context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message, trailers)


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Faults and authentication in front of every call, and API errors as statuses behind it."""

    def __init__(self, authenticator: Authenticator, faults: FaultTable) -> None:
        self._authenticator = authenticator
        self._faults = faults

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        inner = handler.unary_unary

        async def call(request: Any, context: Any) -> Any:
            try:
                self._authorise(details)
                return await self._with_fault(details.method, inner, request, context)
            except ApiError as error:
                await _abort(context, error)
            except ValueError as error:
                # What the conversions refuse, pydantic's errors among them.
                await _abort(context, ApiError(400, str(error)))

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    def _authorise(self, details: Any) -> None:
        if details.method != "/qdrant.Qdrant/HealthCheck":
            _ACCESS.set(self._authenticator.authenticate(dict(details.invocation_metadata)))

    async def _with_fault(self, method: str, inner: Any, request: Any, context: Any) -> Any:
        fault = self._faults.take("GRPC", method)
        if fault is not None:
            await asyncio.sleep(fault.latency)
            if fault.drop == "after-effect":
                await inner(request, context)
            if fault.drop is not None:
                raise ApiError(503, "injected fault: connection dropped")
            if fault.status is not None:
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                raise ApiError(fault.status, fault.message, headers=headers)
        return await inner(request, context)


def _method(function: Callable[[Any, Any, Access], Any]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    @functools.wraps(function)
    async def answer(self: Any, request: Any, context: Any) -> Any:
        started = time.perf_counter()
        response = function(self, request, _ACCESS.get())
        if "time" in response.DESCRIPTOR.fields_by_name:
            response.time = time.perf_counter() - started
        return response

    return answer


def _refuse_rest(base: type, served: type) -> None:
    """Every method of the service that `served` does not define answers 501 and its name."""

    def refusal(name: str) -> Any:
        async def refuse(self: Any, request: Any, context: Any) -> Any:
            raise unsupported(f"gRPC {name}")

        return refuse

    for name in vars(base):
        if name[0].isupper() and name not in vars(served):
            setattr(served, name, refusal(f"{base.__name__.removesuffix('Servicer')}.{name}"))


def _only(message: Any, *served: str) -> None:
    """Refuse fields that are set and not served."""
    for field, _ in message.ListFields():
        if field.name not in served:
            raise unsupported(f"gRPC field {message.DESCRIPTOR.name}.{field.name}")


def _filter(message: Any) -> models.Filter | None:
    return GrpcToRest.convert_filter(message.filter) if message.HasField("filter") else None


def _payload(message: Any) -> Any:
    return GrpcToRest.convert_with_payload_interface(message.with_payload) if message.HasField("with_payload") else None


def _vectors(message: Any) -> Any:
    return GrpcToRest.convert_with_vectors_selector(message.with_vectors) if message.HasField("with_vectors") else None


def _selection(selector: Any) -> dict[str, Any]:
    if selector.WhichOneof("points_selector_one_of") == "filter":
        return {"filter": GrpcToRest.convert_filter(selector.filter)}
    return {"points": [GrpcToRest.convert_point_id(i) for i in selector.points.ids]}


def _shard_key(message: Any) -> Any:
    if not message.HasField("shard_key_selector"):
        return None
    return GrpcToRest.convert_shard_key_selector(message.shard_key_selector)


def _updated(result: dict[str, Any]) -> Any:
    return api.PointsOperationResponse(result=RestToGrpc.convert_update_result(models.UpdateResult(**result)))


def _scored(points: list[dict[str, Any]]) -> list[Any]:
    return [RestToGrpc.convert_scored_point(models.ScoredPoint(**{"payload": {}, **point})) for point in points]


def _records(points: list[dict[str, Any]]) -> list[Any]:
    return [RestToGrpc.convert_record(models.Record(**{"payload": {}, **point})) for point in points]


class Points(api.PointsServicer):
    """The Points service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @_method
    def Upsert(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Insert or replace points."""
        served = ("collection_name", "wait", "points", "update_filter", "update_mode", "shard_key_selector")
        _only(request, *served, "ordering", "timeout")
        mode = GrpcToRest.convert_update_mode(request.update_mode) if request.HasField("update_mode") else None
        body = models.PointsList(
            points=[GrpcToRest.convert_point_struct(point) for point in request.points],
            update_filter=GrpcToRest.convert_filter(request.update_filter)
            if request.HasField("update_filter")
            else None,
            update_mode=mode,
            shard_key=_shard_key(request),
        )
        return _updated(self._service.upsert(access, request.collection_name, body, request.wait))

    @_method
    def UpdateVectors(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Replace single vectors."""
        served = ("collection_name", "wait", "points", "update_filter", "shard_key_selector")
        _only(request, *served, "ordering", "timeout")
        body = models.UpdateVectors(
            points=[GrpcToRest.convert_point_vectors(point) for point in request.points],
            update_filter=GrpcToRest.convert_filter(request.update_filter)
            if request.HasField("update_filter")
            else None,
            shard_key=_shard_key(request),
        )
        return _updated(self._service.update_vectors(access, request.collection_name, body, request.wait))

    @_method
    def Delete(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Delete points."""
        _only(request, "collection_name", "wait", "points", "shard_key_selector", "ordering", "timeout")
        chosen: dict[str, Any] = {**_selection(request.points), "shard_key": _shard_key(request)}
        body = models.FilterSelector(**chosen) if "filter" in chosen else models.PointIdsList(**chosen)
        return _updated(self._service.delete(access, request.collection_name, body, request.wait))

    @_method
    def SetPayload(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Merge into payloads."""
        return self._set_payload(request, access, overwrite=False)

    @_method
    def OverwritePayload(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Replace payloads."""
        return self._set_payload(request, access, overwrite=True)

    def _set_payload(self, request: Any, access: Access, *, overwrite: bool) -> Any:
        served = ("collection_name", "wait", "payload", "points_selector", "key", "shard_key_selector")
        _only(request, *served, "ordering", "timeout")
        body = models.SetPayload(
            payload=GrpcToRest.convert_payload(request.payload),
            key=request.key if request.HasField("key") else None,
            shard_key=_shard_key(request),
            **_selection(request.points_selector),
        )
        return _updated(
            self._service.set_payload(access, request.collection_name, body, request.wait, overwrite=overwrite)
        )

    @_method
    def Get(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Points by id."""
        served = ("collection_name", "ids", "with_payload", "with_vectors", "shard_key_selector")
        _only(request, *served, "timeout", "read_consistency")
        body = models.PointRequest(
            shard_key=_shard_key(request),
            ids=[GrpcToRest.convert_point_id(i) for i in request.ids],
            with_payload=_payload(request),
            with_vector=_vectors(request),
        )
        return api.GetResponse(result=_records(self._service.retrieve(access, request.collection_name, body)))

    @_method
    def Scroll(self, request: Any, access: Access) -> Any:  # noqa: N802
        """A page of points."""
        served = ("collection_name", "filter", "offset", "limit", "with_payload", "with_vectors", "order_by")
        _only(request, *served, "shard_key_selector", "timeout", "read_consistency")
        body = models.ScrollRequest(
            shard_key=_shard_key(request),
            offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
            limit=request.limit if request.HasField("limit") else None,
            filter=_filter(request),
            with_payload=_payload(request),
            with_vector=_vectors(request),
            order_by=GrpcToRest.convert_order_by(request.order_by) if request.HasField("order_by") else None,
        )
        page = self._service.scroll(access, request.collection_name, body)
        following = page["next_page_offset"]
        return api.ScrollResponse(
            result=_records(page["points"]),
            next_page_offset=None if following is None else RestToGrpc.convert_extended_point_id(following),
        )

    @_method
    def Count(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Number of points."""
        _only(request, "collection_name", "filter", "exact", "shard_key_selector", "timeout", "read_consistency")
        body = models.CountRequest(shard_key=_shard_key(request), filter=_filter(request), exact=request.exact)
        count = self._service.count(access, request.collection_name, body)
        return api.CountResponse(result=api.CountResult(count=count))

    @_method
    def Query(self, request: Any, access: Access) -> Any:  # noqa: N802
        """One universal query."""
        (points,) = self._service.query(access, request.collection_name, [_query(request)])
        return api.QueryResponse(result=_scored(points))

    @_method
    def QueryBatch(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Several universal queries."""
        bodies = [_query(query) for query in request.query_points]
        found = self._service.query(access, request.collection_name, bodies, batch=True)
        return api.QueryBatchResponse(result=[api.BatchResult(result=_scored(points)) for points in found])


def _query(request: Any) -> models.QueryRequest:
    return GrpcToRest.convert_query_points(request)


class Collections(api.CollectionsServicer):
    """The Collections service: reads only, definition goes over REST."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @_method
    def Get(self, request: Any, access: Access) -> Any:  # noqa: N802
        """A collection's description."""
        described = self._service.collection(access, request.collection_name, Need.READ).describe()
        info = models.CollectionInfo(**described)
        return api.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    @_method
    def List(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Names of the visible collections."""
        names = self._service.names(access)
        return api.ListCollectionsResponse(collections=[api.CollectionDescription(name=name) for name in names])

    @_method
    def CollectionExists(self, request: Any, access: Access) -> Any:  # noqa: N802
        """Whether a collection or alias exists."""
        there = self._service.exists(access, request.collection_name)
        return api.CollectionExistsResponse(result=api.CollectionExists(exists=there))


class Health(api.QdrantServicer):
    """The root service."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def HealthCheck(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Version, without credentials."""
        return api.HealthCheckReply(title="qdrant - vector search engine (searchops double)", version=self._version)


_refuse_rest(api.PointsServicer, Points)
_refuse_rest(api.CollectionsServicer, Collections)


def build(service: Service, authenticator: Authenticator, faults: FaultTable, version: str, address: str) -> Any:
    """A gRPC server, not yet started, bound to `address`."""
    server = grpc.aio.server(interceptors=[Guard(authenticator, faults)], options=_OPTIONS)
    generated: Any = api
    generated.add_PointsServicer_to_server(Points(service), server)
    generated.add_CollectionsServicer_to_server(Collections(service), server)
    generated.add_QdrantServicer_to_server(Health(version), server)
    server.add_insecure_port(address)
    return server
