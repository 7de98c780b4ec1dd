"""Secrets with tenants' tokens over the API server: single GETs and guarded writes, never a list."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from searchops.adapters.kube_api import AlreadyExists, KubeApi
from searchops.api.observed import AccessSecretState
from searchops.runtime.errors import Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCESS_SECRET_TYPE = "searchops.dev/access"  # noqa: S105 - a Secret's type
OWNER_UID = "searchops.dev/owner-uid"
INPUTS_DIGEST = "searchops.dev/inputs-digest"
RENEW_AT = "searchops.dev/renew-at"


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
