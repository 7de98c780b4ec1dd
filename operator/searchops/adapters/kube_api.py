"""One transport to the API server: kubernetes' own client for authentication and TLS, plain JSON in and out.

Typed models of ten resource kinds would cost memory and time at 10,000 objects and would drop fields that they do not
know; what we read is validated where it is used.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import client, config
from kubernetes.config.config_exception import ConfigException as SyncConfigException

from searchops.runtime.errors import Conflict, NotReady, Terminal, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MERGE_PATCH = "application/merge-patch+json"
PAGE = 500


class NotFound(NotReady):
    """404 for one object."""

    def __init__(self, message: str) -> None:
        super().__init__("NotFound", message)


class AlreadyExists(Conflict):
    """409 to a create: an object of that name is there."""


class KubeApi:
    """Requests to the API server.

    Args:
        api: an authenticated client.
        timeout: seconds that one request may take.
    """

    def __init__(self, api: client.ApiClient, *, timeout: float = 15.0) -> None:
        self._api: Any = api
        self._timeout = timeout

    @classmethod
    async def connect(cls, kubeconfig: Path | None, *, timeout: float = 15.0) -> KubeApi:
        """Connect as the Pod's ServiceAccount, or by a kubeconfig where one is given.

        Raises:
            Terminal: neither is usable.
        """
        loader: Any = config
        configuration = client.Configuration()
        try:
            if kubeconfig is not None:
                await loader.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
            else:
                loader.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, SyncConfigException, OSError) as error:
            raise Terminal(
                "InvalidSettings", f"no way to the API server: {error}; set KUBECONFIG or run in a Pod"
            ) from error
        made: Any = configuration
        # Else aiohttp reads the proxies and a .netrc anew at each request, the file in a thread.
        made.client_session_kwargs = {"trust_env": False}
        made.proxy = made.proxy or _proxy_of(made.host)
        return cls(client.ApiClient(configuration), timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, path: str) -> dict[str, Any] | None:
        """The object at a path, or None on 404."""
        try:
            return await self.request("GET", path)
        except NotFound:
            return None

    async def list(self, path: str, *, label_selector: str = "", metadata_only: bool = False) -> list[dict[str, Any]]:
        """Every item, in pages; a list that is cut short raises."""
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            query = {"limit": str(PAGE)}
            if label_selector:
                query["labelSelector"] = label_selector
            if token:
                query["continue"] = token
            page = await self.request("GET", path, query=query, metadata_only=metadata_only)
            items += page.get("items") or []
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return items

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST; raises AlreadyExists on 409."""
        return await self.request("POST", path, body=body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT."""
        return await self.request("PUT", path, body=body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """JSON merge patch."""
        return await self.request("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """DELETE; a missing object is success."""
        try:
            await self.request("DELETE", path, body=body)
        except NotFound:
            return

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        metadata_only: bool = False,
    ) -> dict[str, Any]:
        """One request.

        Raises:
            NotFound: 404.
            AlreadyExists: 409 to a POST.
            Conflict: any other 409.
            Terminal: 400, 403, 405 or 422: the same request would be refused again.
            Transient: anything else, time-outs among them: the effect is unknown.
        """
        accept = "application/json"
        if metadata_only:
            accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        headers = {**self._api.default_headers, "Accept": accept, "Content-Type": content_type}
        configuration = self._api.configuration
        token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["authorization"] = token
        url = f"{configuration.host}{path}?{urlencode(query)}" if query else f"{configuration.host}{path}"
        try:
            response = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=self._timeout
            )
            data = await response.read()
        except client.ApiException as error:
            raise _translate(error.status or 0, error.body or error.reason or "", method, path) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise Transient(
                f"the API server gave no answer to {method} {path} ({said}); its effect is read back"
            ) from error
        if response.status >= 300:
            raise _translate(response.status, data, method, path, response.headers.get("Retry-After"))
        answer: dict[str, Any] = json.loads(data) if data else {}
        return answer


def _proxy_of(host: str) -> str | None:
    """The environment's proxy for the API server, or None."""
    parts = urlsplit(host)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


class NamespaceEnding(Terminal):
    """Nothing new is let into a namespace that is being deleted."""


def _translate(
    status: int, body: bytes | str, method: str, path: str, retry_after: str | None = None
) -> NotFound | Conflict | Terminal | Transient:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        message = json.loads(text).get("message", text)
    except (ValueError, AttributeError):
        message = text
    said = f"{method} {path}: {status} {message[:500]}"
    if status == 404:
        return NotFound(said)
    if status == 409:
        return AlreadyExists(said) if method == "POST" else Conflict(said)
    if status == 403 and "because it is being terminated" in message:
        return NamespaceEnding("Forbidden", said)
    if status in (400, 403, 405, 422):
        return Terminal("InvalidSpec" if status in (400, 422) else "Forbidden", said)
    return Transient(said, float(retry_after) if retry_after and retry_after.isdigit() else None)
