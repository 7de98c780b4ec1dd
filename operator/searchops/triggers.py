"""The only kopf handlers: watch events into caches and queues. They write nothing and never touch kopf's patch.

Every handler is a coroutine function: kopf runs others in threads, where neither caches nor queues may be touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import kopf

from searchops.api.meta import GROUP, VERSION
from searchops.runtime.cache import Change
from searchops.runtime.key import Key
from searchops.runtime.queue import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.runtime.cache import CachedObject, ObjectCache
    from searchops.runtime.queue import WorkQueue

QUIET = frozenset({Change.ECHO, Change.UNCHANGED, Change.OUTDATED})
MODEL_DEBOUNCE_SECONDS = 0.5
OWNER_KIND = "searchops.dev/owner-kind"
OWNER_NAME = "searchops.dev/owner-name"
OWNER_NAMESPACE = "searchops.dev/owner-namespace"
MODEL_INDEX = "model"


@dataclass(slots=True)
class Watched:
    """Caches and queues that events go into.

    Attributes:
        apply_secret: takes a Secret of the operator's namespace; True where a cell or pool changed.
        apply_slice: the same for an EndpointSlice.
        templates: PodTemplates of the operator's namespace by name.
        model_view: what of a model concerns its tenants; only a change of this wakes them.
    """

    tenants: ObjectCache[Any]
    models: ObjectCache[Any]
    reindexes: ObjectCache[Any]
    tenant_queue: WorkQueue[Key]
    model_queue: WorkQueue[Key]
    reindex_queue: WorkQueue[Key]
    apply_secret: Callable[[str | None, Mapping[str, Any]], bool]
    apply_slice: Callable[[str | None, Mapping[str, Any]], bool]
    templates: dict[str, Mapping[str, Any]]
    model_view: Callable[[CachedObject], Any]
    published: dict[Key, Any] = field(default_factory=dict)


def priority_of(event_type: str | None) -> Priority:
    """A change comes before what a list or relist shows (kopf gives those no type)."""
    return Priority.RESYNC if event_type is None else Priority.CHANGE


def on_tenant(watched: Watched, event_type: str | None, raw: Mapping[str, Any]) -> None:
    """A tenant, its model (which counts it) and its rebuild."""
    change = watched.tenants.apply(event_type, raw)
    if change in QUIET and change is not Change.ECHO:
        return
    key = _key(raw)
    if change is not Change.ECHO:
        watched.tenant_queue.add(key, priority_of(event_type))
    if event_type is not None:
        model = raw.get("spec", {}).get("model", {}).get("name")
        if model:
            watched.model_queue.add_after(Key("", model), MODEL_DEBOUNCE_SECONDS, Priority.CHANGE)
        rebuild = raw.get("status", {}).get("rebuild", {}).get("reindexJob")
        if rebuild:
            watched.reindex_queue.add(Key(key.namespace, rebuild), Priority.CHANGE)


def on_model(watched: Watched, event_type: str | None, raw: Mapping[str, Any]) -> None:
    """A model, and its tenants where what it publishes has changed (an echo of our own write does publish)."""
    change = watched.models.apply(event_type, raw)
    key = _key(raw)
    if change not in QUIET:
        watched.model_queue.add(key, priority_of(event_type))
    cached = watched.models.get(key)
    view = watched.model_view(cached) if cached is not None else None
    if watched.published.get(key) != view:
        watched.published[key] = view
        for tenant in watched.tenants.by_index(MODEL_INDEX, key.name):
            watched.tenant_queue.add(tenant.key, priority_of(event_type))


def on_reindex(watched: Watched, event_type: str | None, raw: Mapping[str, Any]) -> None:
    """A ReindexJob, and the tenant that waits for it."""
    change = watched.reindexes.apply(event_type, raw)
    if change in QUIET and change is not Change.ECHO:
        return
    key = _key(raw)
    if change is not Change.ECHO:
        watched.reindex_queue.add(key, priority_of(event_type))
    tenant = raw.get("spec", {}).get("tenant")
    if tenant and event_type is not None:
        watched.tenant_queue.add(Key(key.namespace, tenant), Priority.CHANGE)


def on_job(watched: Watched, raw: Mapping[str, Any]) -> None:
    """A worker Job wakes the object that its labels and annotations name."""
    metadata = raw["metadata"]
    kind = metadata.get("labels", {}).get(OWNER_KIND)
    annotations = metadata.get("annotations", {})
    key = Key(annotations.get(OWNER_NAMESPACE, ""), annotations.get(OWNER_NAME, ""))
    if kind == "EmbeddingModel":
        watched.model_queue.add(Key("", key.name), Priority.CHANGE)
    elif kind == "ReindexJob":
        watched.reindex_queue.add(key, Priority.CHANGE)


def on_registration(watched: Watched, changed: bool) -> None:
    """A cell or pool changed: every model looks at its servers and, with less hurry, every tenant at its cell."""
    if not changed:
        return
    for key in watched.models.keys():  # noqa: SIM118 - a cache is no mapping
        watched.model_queue.add(key, Priority.CHANGE)
    for key in watched.tenants.keys():  # noqa: SIM118 - a cache is no mapping
        watched.tenant_queue.add(key, Priority.RESYNC)


def on_template(watched: Watched, event_type: str | None, raw: Mapping[str, Any]) -> None:
    """A PodTemplate; models that wait for it look again, and ReindexJobs do so every few seconds."""
    name = raw["metadata"]["name"]
    if event_type == "DELETED":
        watched.templates.pop(name, None)
    else:
        watched.templates[name] = raw
    for key in watched.models.keys():  # noqa: SIM118 - a cache is no mapping
        watched.model_queue.add(key, Priority.RESYNC)


def _key(raw: Mapping[str, Any]) -> Key:
    return Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])


def kinds_registry(watched: Watched) -> kopf.OperatorRegistry:
    """Handlers of our three kinds, clusterwide."""
    registry = kopf.OperatorRegistry()
    _login(registry)

    @kopf.on.event(GROUP, VERSION, "searchtenants", registry=registry)
    async def tenant(event: Any, **_: Any) -> None:
        on_tenant(watched, event["type"], event["object"])

    @kopf.on.event(GROUP, VERSION, "embeddingmodels", registry=registry)
    async def model(event: Any, **_: Any) -> None:
        on_model(watched, event["type"], event["object"])

    @kopf.on.event(GROUP, VERSION, "reindexjobs", registry=registry)
    async def reindex(event: Any, **_: Any) -> None:
        on_reindex(watched, event["type"], event["object"])

    return registry


def namespace_registry(watched: Watched) -> kopf.OperatorRegistry:
    """Handlers of the operator's own namespace; a clusterwide watch would list every Secret of the cluster."""
    registry = kopf.OperatorRegistry()
    _login(registry)

    @kopf.on.event("", "v1", "secrets", registry=registry)
    async def secret(event: Any, **_: Any) -> None:
        on_registration(watched, watched.apply_secret(event["type"], event["object"]))

    @kopf.on.event("discovery.k8s.io", "v1", "endpointslices", registry=registry)
    async def endpoint_slice(event: Any, **_: Any) -> None:
        on_registration(watched, watched.apply_slice(event["type"], event["object"]))

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def job(event: Any, **_: Any) -> None:
        on_job(watched, event["object"])

    @kopf.on.event("", "v1", "podtemplates", registry=registry)
    async def template(event: Any, **_: Any) -> None:
        on_template(watched, event["type"], event["object"])

    return registry


def _login(registry: kopf.OperatorRegistry) -> None:
    @kopf.on.login(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
