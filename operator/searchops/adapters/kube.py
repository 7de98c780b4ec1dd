"""Our own kinds, ConfigMaps, the Lease and events over the API server."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from searchops.adapters.kube_api import AlreadyExists, KubeApi, NamespaceEnding
from searchops.api.meta import API_VERSION, GROUP, VERSION
from searchops.runtime.errors import Transient
from searchops.runtime.key import Identity, Key
from searchops.runtime.leader import LeaseRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.runtime.recorder import Event

logger = logging.getLogger(__name__)

FIELD_MANAGER = "searchops"
ACCESS_SECRET_TYPE = "searchops.dev/access"  # noqa: S105 - a Secret's type
OWNER_UID = "searchops.dev/owner-uid"
INPUTS_DIGEST = "searchops.dev/inputs-digest"
RENEW_AT = "searchops.dev/renew-at"
CLUSTER_KINDS = frozenset({"embeddingmodels"})


def object_path(plural: str, namespace: str, name: str = "") -> str:
    """Path of one of our objects, or of its collection."""
    scope = "" if plural in CLUSTER_KINDS or not namespace else f"/namespaces/{namespace}"
    path = f"/apis/{GROUP}/{VERSION}{scope}/{plural}"
    return f"{path}/{name}" if name else path


class KubeObjects:
    """Reads and guarded writes of our own kinds."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The live object, or None on 404."""
        return await self._api.get(object_path(plural, namespace, name))

    async def list_metadata(self, plural: str) -> list[Identity]:
        """Every object of a kind, metadata only."""
        items = await self._api.list(object_path(plural, ""), metadata_only=True)
        return [
            Identity(
                Key(item["metadata"].get("namespace", ""), item["metadata"]["name"]),
                item["metadata"]["uid"],
                item["metadata"]["resourceVersion"],
            )
            for item in items
        ]

    async def patch_status(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        """Merge-patch ``/status``."""
        answer = await self._api.patch(f"{object_path(plural, namespace, name)}/status", body)
        return str(answer["metadata"]["resourceVersion"])

    async def patch_metadata(self, plural: str, namespace: str, name: str, body: Mapping[str, Any]) -> str:
        """Merge-patch the object."""
        answer = await self._api.patch(object_path(plural, namespace, name), body)
        return str(answer["metadata"]["resourceVersion"])

    async def cluster_uid(self) -> str:
        """Uid of the namespace kube-system."""
        return await self.namespace_uid("kube-system")

    async def namespace_uid(self, namespace: str) -> str:
        """Uid of a namespace.

        Raises:
            Transient: it is not there (yet, or any more).
        """
        found = await self._api.get(f"/api/v1/namespaces/{namespace}")
        if found is None:
            raise Transient(f"namespace {namespace} does not exist")
        return str(found["metadata"]["uid"])


class KubeReindexJobs:
    """ReindexJobs that tenants make."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def create(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Create once."""
        try:
            await self._api.create(object_path("reindexjobs", namespace), {"apiVersion": API_VERSION, **body})
        except AlreadyExists:
            return

    async def delete(self, namespace: str, name: str, *, known_uid: str) -> None:
        """Delete the one whose uid, or whose owner's, this is; another that took the name meanwhile is left alone.

        Raises:
            Conflict: it was replaced between the read and the deletion.
        """
        path = object_path("reindexjobs", namespace, name)
        found = await self._api.get(path)
        if found is None:
            return
        metadata = found["metadata"]
        if known_uid in (metadata["uid"], metadata.get("labels", {}).get(OWNER_UID)):
            await self._api.delete(path, {"preconditions": {"uid": metadata["uid"]}})


class KubeStateMaps:
    """ConfigMaps that keep what must survive a lost status."""

    def __init__(self, api: KubeApi, namespace: str) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"

    async def read(self, name: str) -> dict[str, str] | None:
        """The data, or None."""
        found = await self._api.get(f"{self._path}/{name}")
        return None if found is None else dict(found.get("data", {}))

    async def write(self, name: str, data: Mapping[str, str]) -> None:
        """Create, or patch the data."""
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "searchops"}},
            "data": dict(data),
        }
        try:
            await self._api.create(self._path, body)
        except AlreadyExists:
            await self._api.patch(f"{self._path}/{name}", {"data": dict(data)})


class KubeLease:
    """The Lease of the leader election."""

    def __init__(self, api: KubeApi, namespace: str, name: str) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name

    async def get(self) -> LeaseRecord | None:
        """The record, or None."""
        found = await self._api.get(f"{self._collection}/{self._name}")
        return None if found is None else _lease_record(found)

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        """Make the Lease."""
        return _lease_record(await self._api.create(self._collection, self._body(record)))

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        """Write over the version that the record names."""
        return _lease_record(await self._api.replace(f"{self._collection}/{self._name}", self._body(record)))

    def _body(self, record: LeaseRecord) -> dict[str, Any]:
        metadata = {"name": self._name}
        if record.resource_version:
            metadata["resourceVersion"] = record.resource_version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": record.holder,
                "leaseDurationSeconds": record.duration_seconds,
                "acquireTime": _micro_time(record.acquired_at),
                "renewTime": _micro_time(record.renewed_at),
                "leaseTransitions": record.transitions,
            },
        }


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _lease_record(raw: Mapping[str, Any]) -> LeaseRecord:
    spec = raw.get("spec", {})
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        duration_seconds=spec.get("leaseDurationSeconds") or 15,
        acquired_at=_moment(spec.get("acquireTime")),
        renewed_at=_moment(spec.get("renewTime")),
        transitions=spec.get("leaseTransitions") or 0,
        resource_version=raw["metadata"]["resourceVersion"],
    )


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else datetime.fromtimestamp(0, UTC)


class KubeEvents:
    """Events of group events.k8s.io."""

    def __init__(self, api: KubeApi, *, instance: str, now: Callable[[], datetime], fallback_namespace: str) -> None:
        self._api = api
        self._instance = instance
        self._now = now
        self._fallback = fallback_namespace

    async def publish(self, event: Event) -> None:
        """Write one event; those of cluster-scoped objects go to the namespace `default`, as the API server wants."""
        namespace = event.reference.get("namespace") or "default"
        moment = self._now()
        name = f"{event.reference.get('name', 'searchops')}.{int(moment.timestamp() * 1e6):x}"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": _micro_time(moment),
            "reportingController": "searchops.dev/operator",
            "reportingInstance": self._instance[:128],
            "action": event.reason,
            "reason": event.reason,
            "regarding": dict(event.reference),
            "note": event.message,
            "type": "Warning" if event.warning else "Normal",
        }
        try:
            await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
        except NamespaceEnding:
            logger.debug("no event is written into a namespace that is being deleted", extra={"namespace": namespace})
