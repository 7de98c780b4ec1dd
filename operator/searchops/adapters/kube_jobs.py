"""Worker Jobs of the operator's namespace, their Secrets, and the PodTemplates they take their Pod from."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from searchops.adapters.kube_api import AlreadyExists, KubeApi
from searchops.api.observed import JobState, OwnedJob
from searchops.runtime.errors import Conflict, Transient, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACCESS_SECRET_TYPE = "searchops.dev/access"  # noqa: S105 - a Secret's type
OWNER_UID = "searchops.dev/owner-uid"
OWNER_KIND = "searchops.dev/owner-kind"
OWNER_NAME = "searchops.dev/owner-name"
OWNER_NAMESPACE = "searchops.dev/owner-namespace"
INPUTS_DIGEST = "searchops.dev/inputs-digest"
RENEW_AT = "searchops.dev/renew-at"


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
            "data": _encoded(secret),
        }
        try:
            await self._api.create(self._secret_path(), body)
        except AlreadyExists as error:
            await self._owned_secret(name, uid, error)

    async def renew_secret(self, name: str, uid: str, secret: Mapping[str, str]) -> None:
        """Put a fresh content into the Secret of this very Job; Pods that start from now on read it.

        Raises:
            Transient: the Secret belongs to an earlier Job of that name, and is not gone yet.
            Conflict: it was changed between the read and the write.
        """
        found = await self._owned_secret(name, uid)
        if found is None:
            await self._create_secret(name, uid, secret)
            return
        seen = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await self._api.patch(self._secret_path(name), {"metadata": seen, "data": _encoded(secret)})

    async def _owned_secret(self, name: str, uid: str, cause: Exception | None = None) -> dict[str, Any] | None:
        """The Job's Secret, or None; never another Job's."""
        found = await self._api.get(self._secret_path(name))
        owners = [] if found is None else found["metadata"].get("ownerReferences", [])
        if found is not None and uid not in [owner["uid"] for owner in owners]:
            seen = f"Secret {self._namespace}/{name} belongs to {[owner['uid'] for owner in owners] or 'nobody'}"
            wanted, step = f"Job {uid}", "It is tried again; remove the Secret if it is nobody's."
            raise Transient(describe(seen, wanted=wanted, next_step=step)) from cause
        return found

    def _secret_path(self, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self._namespace}/secrets"
        return f"{path}/{name}" if name else path

    async def delete(self, name: str) -> None:
        """Delete with its Pods."""
        await self._api.delete(self._path(name), {"propagationPolicy": "Background"})

    async def owned(self, owner_uid: str) -> tuple[JobState, ...]:
        """Every Job with this owner's label."""
        found = await self._api.list(self._path(), label_selector=f"{OWNER_UID}={owner_uid}")
        return tuple(job_state(raw) for raw in found)

    async def all_owned(self) -> tuple[OwnedJob, ...]:
        """Every Job that is labelled with an owner and is not being deleted."""
        found = await self._api.list(self._path(), label_selector=OWNER_UID)
        return tuple(owned_job(raw) for raw in found if not raw["metadata"].get("deletionTimestamp"))

    async def stop(self, name: str, uid: str) -> None:
        """Delete this very Job; it stays readable until its Pods are gone, so that no other starts beside them."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        try:
            await self._api.delete(self._path(name), body)
        except Conflict:
            return

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


def _encoded(secret: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}


def owned_job(raw: Mapping[str, Any]) -> OwnedJob:
    """A Job with the owner that it names."""
    metadata = raw["metadata"]
    labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
    return OwnedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        owner_kind=labels.get(OWNER_KIND, ""),
        owner_uid=labels.get(OWNER_UID, ""),
        owner_namespace=annotations.get(OWNER_NAMESPACE, ""),
        owner_name=annotations.get(OWNER_NAME, ""),
    )


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
