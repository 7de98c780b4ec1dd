"""Our own kinds, worker Jobs, Secrets, ConfigMaps, the Lease and events over the API server."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from searchops.adapters.kube_api import AlreadyExists, KubeApi
from searchops.api.meta import API_VERSION, GROUP, VERSION
from searchops.api.observed import AccessSecretState, JobState
from searchops.runtime.errors import Terminal, Transient
from searchops.runtime.key import Identity, Key
from searchops.runtime.leader import LeaseRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from searchops.runtime.recorder import Event

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

    async def delete(self, namespace: str, name: str) -> None:
        """Delete."""
        await self._api.delete(object_path("reindexjobs", namespace, name))


class KubeAccessSecrets:
    """Secrets with tenants' tokens: single GETs and writes, never a list of a cluster's Secrets."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        """The Secret under this name, whoever owns it."""
        found = await self._api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        if found is None:
            return None
        metadata = found["metadata"]
        annotations = metadata.get("annotations", {})
        token = base64.b64decode(found.get("data", {}).get("token", "")).decode(errors="replace")
        return AccessSecretState(
            name=name,
            type=found.get("type", ""),
            owner_uid=metadata.get("labels", {}).get(OWNER_UID, ""),
            inputs_digest=annotations.get(INPUTS_DIGEST, ""),
            renew_at=annotations.get(RENEW_AT, ""),
            token=token if found.get("type") == ACCESS_SECRET_TYPE else "",
        )

    async def write(
        self,
        namespace: str,
        name: str,
        *,
        owner: Mapping[str, str],
        data: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> None:
        """Create, or patch one whose type and owner are ours.

        Raises:
            Terminal: the name is taken by something that is not ours.
        """
        path = f"/api/v1/namespaces/{namespace}/secrets"
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": ACCESS_SECRET_TYPE,
            "metadata": {
                "name": name,
                "labels": {OWNER_UID: owner["uid"], "app.kubernetes.io/managed-by": "searchops"},
                "annotations": dict(annotations),
            },
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
        }
        try:
            await self._api.create(path, body)
        except AlreadyExists as error:
            found = await self.read(namespace, name)
            if found is None:
                raise Transient(f"Secret {namespace}/{name} came and went; it is tried again") from error
            if found.type != ACCESS_SECRET_TYPE or found.owner_uid != owner["uid"]:
                raise Terminal(
                    "SecretConflict", f"Secret {namespace}/{name} is not ours (type {found.type}); choose another name"
                ) from error
            await self._api.patch(f"{path}/{name}", {"metadata": body["metadata"], "data": body["data"]})

    async def delete(self, namespace: str, name: str, *, owner_uid: str) -> None:
        """Delete only where type and owner are ours."""
        found = await self.read(namespace, name)
        if found is not None and found.type == ACCESS_SECRET_TYPE and found.owner_uid == owner_uid:
            await self._api.delete(f"/api/v1/namespaces/{namespace}/secrets/{name}")


class KubeJobs:
    """Worker Jobs of the operator's namespace, and the PodTemplates they take their Pod from.

    Args:
        template: a PodTemplate by name, from the cache that the watch fills.
    """

    def __init__(self, api: KubeApi, namespace: str, *, template: Callable[[str], Mapping[str, Any] | None]) -> None:
        self._api = api
        self._namespace = namespace
        self._template = template

    def pod_template(self, name: str) -> Mapping[str, Any] | None:
        """A PodTemplate."""
        return self._template(name)

    async def get(self, name: str) -> JobState | None:
        """The Job's state."""
        found = await self._api.get(self._path(name))
        return None if found is None else job_state(found)

    async def create(self, manifest: Mapping[str, Any], secret: Mapping[str, str] | None) -> None:
        """Create the Job once; then its Secret, owned by it. A Pod waits for a Secret that is missing."""
        name = manifest["metadata"]["name"]
        try:
            made = await self._api.create(self._path(), manifest)
        except AlreadyExists:
            found = await self._api.get(self._path(name))
            if found is None:
                return
            made = found
        if secret is not None:
            await self._create_secret(name, made["metadata"]["uid"], secret)

    async def _create_secret(self, name: str, uid: str, secret: Mapping[str, str]) -> None:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": True}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {
                "name": name,
                "ownerReferences": [owner],
                "labels": {"app.kubernetes.io/managed-by": "searchops"},
            },
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()},
        }
        try:
            await self._api.create(f"/api/v1/namespaces/{self._namespace}/secrets", body)
        except AlreadyExists:
            return

    async def delete(self, name: str) -> None:
        """Delete with its Pods."""
        await self._api.delete(self._path(name), {"propagationPolicy": "Background"})

    async def answers(self, name: str) -> tuple[str, ...]:
        """Termination messages of the Job's finished Pods, newest first."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        pods = await self._api.list(path, label_selector=f"batch.kubernetes.io/job-name={name}")
        ended = []
        for pod in pods:
            for status in pod.get("status", {}).get("containerStatuses", []):
                terminated = status.get("state", {}).get("terminated")
                if status.get("name") == "worker" and terminated and terminated.get("message"):
                    ended.append((terminated.get("finishedAt", ""), terminated["message"]))
        return tuple(message for _, message in sorted(ended, reverse=True))

    def _path(self, name: str = "") -> str:
        path = f"/apis/batch/v1/namespaces/{self._namespace}/jobs"
        return f"{path}/{name}" if name else path


def job_state(raw: Mapping[str, Any]) -> JobState:
    """A Job as planners see it. FailureTarget is a failure already: its Pods are being stopped."""
    metadata, status = raw["metadata"], raw.get("status", {})
    conditions = {item["type"]: item for item in status.get("conditions", []) if item.get("status") == "True"}
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    labels = metadata.get("labels", {})
    return JobState(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_uid=labels.get(OWNER_UID, ""),
        kind=labels.get("searchops.dev/task", ""),
        suspended="Suspended" in conditions,
        active=status.get("active", 0),
        succeeded=status.get("succeeded", 0),
        failed=status.get("failed", 0),
        complete="Complete" in conditions,
        failure=(failed.get("message") or failed.get("reason", "failed")) if failed else "",
        failure_reason=failed.get("reason", "") if failed else "",
        start_time=status.get("startTime", ""),
        completion_time=status.get("completionTime", "") or (failed or {}).get("lastTransitionTime", ""),
    )


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
        await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
