"""The gateway's Secret over the API server: one GET, and writes guarded by what was read."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from searchops.adapters.kube_api import AlreadyExists
from searchops.api.shared import GatewayCredentials, HeldCredentials, read_notes
from searchops.runtime.errors import Conflict, Terminal, describe

if TYPE_CHECKING:
    from searchops.adapters.kube_api import KubeApi
    from searchops.api.shared import Notes

SECRET_TYPE = "searchops.dev/gateway"  # noqa: S105 - a Secret's type
FILE = "credentials.json"
NOTES = "searchops.dev/credential-notes"
ROTATE = "searchops.dev/rotate"


class KubeGatewaySecret:
    """`GatewaySecret`: the Secret that the gateway's Pods mount.

    Args:
        api: the way to the API server.
        namespace: the operator's own.
        name: the Secret's.
    """

    def __init__(self, api: KubeApi, namespace: str, name: str) -> None:
        self._api = api
        self._folder = f"/api/v1/namespaces/{namespace}/secrets"
        self._name = name
        self._seen: str | None = None

    async def read(self) -> HeldCredentials | None:
        """What it holds; None where there is none.

        Raises:
            Terminal: the name is taken by something else, or what it holds cannot be read; neither is written over.
        """
        found = await self._api.get(f"{self._folder}/{self._name}")
        if found is None:
            self._seen = None
            return None
        if found.get("type") != SECRET_TYPE:
            seen = f"Secret {self._name} in the operator's namespace has type {found.get('type')!r}"
            raise Terminal("SecretConflict", describe(seen, wanted=SECRET_TYPE, next_step="Rename or remove it."))
        try:
            text = base64.b64decode(found.get("data", {}).get(FILE, ""))
            credentials = GatewayCredentials.model_validate_json(text)
        except (ValueError, ValidationError):
            seen = f"{FILE} of Secret {self._name} in the operator's namespace cannot be read"
            step = "Restore it, or delete the Secret: every shared tenant's token is then signed anew."
            raise Terminal("SecretConflict", describe(seen, wanted="what the operator wrote", next_step=step)) from None
        metadata = found["metadata"]
        annotations = metadata.get("annotations", {})
        self._seen = metadata["resourceVersion"]
        return HeldCredentials(credentials, read_notes(annotations.get(NOTES, "")), annotations.get(ROTATE, ""))

    async def write(self, credentials: GatewayCredentials, notes: Notes) -> None:
        """Create it, or replace what was read last.

        Raises:
            Conflict: it was changed, or made by somebody else, since.
        """
        content = base64.b64encode(credentials.model_dump_json(by_alias=True).encode()).decode()
        metadata: dict[str, Any] = {
            "name": self._name,
            "labels": {"app.kubernetes.io/managed-by": "searchops"},
            "annotations": {NOTES: notes.model_dump_json(by_alias=True)},
        }
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": metadata,
            "data": {FILE: content},
        }
        if self._seen is None:
            try:
                await self._api.create(self._folder, body)
            except AlreadyExists as error:
                raise Conflict(f"Secret {self._name} has come meanwhile; it is read first") from error
            return
        guarded = {**metadata, "resourceVersion": self._seen}
        await self._api.patch(f"{self._folder}/{self._name}", {"metadata": guarded, "data": {FILE: content}})
