"""Secrets with tenants' tokens over the API server: single GETs and guarded writes, never a list."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from searchops.adapters.kube_api import AlreadyExists, KubeApi
from searchops.api.observed import AccessSecretState
from searchops.runtime.errors import Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCESS_SECRET_TYPE = "searchops.dev/access"  # noqa: S105 - a Secret's type
OWNER_UID = "searchops.dev/owner-uid"
INPUTS_DIGEST = "searchops.dev/inputs-digest"
RENEW_AT = "searchops.dev/renew-at"
TENANT = "searchops.dev/tenant"
TOKEN_ID = "searchops.dev/token-id"  # noqa: S105 - an annotation's name
KEY_ID = "searchops.dev/key-id"


class KubeAccessSecrets:
    """Secrets with tenants' tokens: single GETs and writes, never a list of a cluster's Secrets."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def read(self, namespace: str, name: str) -> AccessSecretState | None:
        """The Secret under this name, whoever owns it."""
        found = await self._api.get(_path(namespace, name))
        return None if found is None else _state(found)

    async def write(
        self,
        namespace: str,
        name: str,
        *,
        owner: Mapping[str, str],
        data: Mapping[str, str],
        annotations: Mapping[str, str],
    ) -> AccessSecretState:
        """Create, or patch one whose type and owner are ours, or were a former tenant's of the same name.

        Returns:
            What the API server has answered: the object as it is now.

        Raises:
            Terminal: the name is taken by something that is not ours.
            Conflict: it was changed or replaced between the read and the write.
        """
        metadata: dict[str, Any] = {
            "name": name,
            "labels": {OWNER_UID: owner["uid"], "app.kubernetes.io/managed-by": "searchops"},
            "annotations": dict(annotations),
        }
        content = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "type": ACCESS_SECRET_TYPE, "metadata": metadata, "data": content}
        try:
            return _state(await self._api.create(_path(namespace), body))
        except AlreadyExists as error:
            found = await self._api.get(_path(namespace, name))
            if found is None:
                raise Transient(f"Secret {namespace}/{name} came and went; it is tried again") from error
            if not _state(found).held_by(ACCESS_SECRET_TYPE, owner["uid"], annotations.get(TENANT, "")):
                raise Terminal(
                    "SecretConflict",
                    f"Secret {namespace}/{name} is not ours (type {found.get('type')}); choose another name",
                ) from error
            seen = {"resourceVersion": found["metadata"]["resourceVersion"]}
            gone = {key: None for key in found.get("data") or {} if key not in content}  # a patch would keep them
            patch = {"metadata": {**metadata, **seen}, "data": {**content, **gone}}
            return _state(await self._api.patch(_path(namespace, name), patch))

    async def delete(self, namespace: str, name: str, *, owner_uid: str) -> None:
        """Delete only where type and owner are ours.

        Raises:
            Conflict: it was changed or replaced between the read and the deletion.
        """
        found = await self._api.get(_path(namespace, name))
        if found is not None and _ours(found, owner_uid):
            seen = {key: found["metadata"][key] for key in ("uid", "resourceVersion")}
            await self._api.delete(_path(namespace, name), {"preconditions": seen})


def _path(namespace: str, name: str = "") -> str:
    path = f"/api/v1/namespaces/{namespace}/secrets"
    return f"{path}/{name}" if name else path


def _ours(found: Mapping[str, Any], owner_uid: str) -> bool:
    owner = found["metadata"].get("labels", {}).get(OWNER_UID)
    return found.get("type") == ACCESS_SECRET_TYPE and owner == owner_uid


def _state(found: Mapping[str, Any]) -> AccessSecretState:
    metadata, own = found["metadata"], found.get("type") == ACCESS_SECRET_TYPE
    annotations = metadata.get("annotations", {})
    token = base64.b64decode(found.get("data", {}).get("token", "")).decode(errors="replace") if own else ""
    return AccessSecretState(
        name=metadata["name"],
        type=found.get("type", ""),
        owner_uid=metadata.get("labels", {}).get(OWNER_UID, ""),
        inputs_digest=annotations.get(INPUTS_DIGEST, ""),
        renew_at=annotations.get(RENEW_AT, ""),
        token=token,
        tenant=annotations.get(TENANT, ""),
        token_id=annotations.get(TOKEN_ID, ""),
        key_id=annotations.get(KEY_ID, ""),
        addressed="url" in (found.get("data") or {}),
    )
