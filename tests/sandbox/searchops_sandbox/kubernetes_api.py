"""A small Kubernetes client for the sandbox: plain JSON over aiohttp, so that it depends on no client library."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import yaml

from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_REQUEST_SECONDS = 30.0


class ApiError(SandboxError):
    """The API server refused a request.

    Attributes:
        status: the HTTP status.
        reason: the machine-readable reason of the `Status` object, for instance ``NotFound``.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Connection:
    """Where an API server is and how to speak to it; the token is kept out of `repr`."""

    server: str
    authority: str | None = None
    token: str | None = field(default=None, repr=False)
    client_certificate: str | None = None
    client_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Connection:
        """The current context of a kubeconfig file.

        Raises:
            SandboxError: where the file names no current context, or one that logs in by a plug-in.
        """
        content = yaml.safe_load(path.read_text())
        current = content.get("current-context")
        contexts = {item["name"]: item["context"] for item in content.get("contexts") or ()}
        if current not in contexts:
            raise SandboxError(f"{path}: current-context is {current!r}, contexts are {sorted(contexts)}")
        context = contexts[current]
        cluster = {item["name"]: item["cluster"] for item in content["clusters"]}[context["cluster"]]
        user = {item["name"]: item["user"] for item in content["users"]}[context["user"]]
        if "exec" in user or "auth-provider" in user:
            raise SandboxError(f"{path}: user {context['user']!r} logs in by a plug-in; use a token or a certificate")
        token = user.get("token")
        if token is None and user.get("tokenFile"):
            token = Path(user["tokenFile"]).read_text().strip()
        return cls(
            server=cluster["server"].rstrip("/"),
            authority=_pem(cluster, "certificate-authority"),
            token=token,
            client_certificate=_pem(user, "client-certificate"),
            client_key=_pem(user, "client-key"),
        )

    def tls(self) -> ssl.SSLContext:
        """A context that trusts the authority and shows the client certificate, if any."""
        context = ssl.create_default_context(cadata=self.authority)
        if self.client_certificate and self.client_key:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
                pem.write(f"{self.client_certificate}\n{self.client_key}\n")
                pem.flush()
                context.load_cert_chain(pem.name)
        return context


class KubernetesApi:
    """Requests by path; every method raises `ApiError` where the API server answers with a failure.

    Network failures pass through as `aiohttp.ClientError` and `TimeoutError`: whether to try again is the caller's.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"Accept": "application/json", "User-Agent": "searchops-sandbox"}
        if self.connection.token:
            headers["Authorization"] = f"Bearer {self.connection.token}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(ssl=self.connection.tls(), limit=32),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections and lets TLS say goodbye."""
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0.05)

    async def get(self, path: str, **query: str) -> Json:
        """One object or one list."""
        return await self._request("GET", path, query=query)

    async def create(self, path: str, body: Json, **query: str) -> Json:
        """POST an object to its collection, or to a sub-resource such as ``…/token``."""
        return await self._request("POST", path, body=body, query=query)

    async def replace(self, path: str, body: Json) -> Json:
        """PUT a whole object; its resourceVersion guards the write."""
        return await self._request("PUT", path, body=body)

    async def patch(self, path: str, body: Json, *, kind: str = MERGE) -> Json:
        """PATCH by the given media type."""
        return await self._request("PATCH", path, body=body, media_type=kind)

    async def apply(self, path: str, body: Json, *, manager: str = "searchops-sandbox") -> Json:
        """Server-side apply; conflicts are taken over."""
        query = {"fieldManager": manager, "force": "true"}
        return await self._request("PATCH", path, body=body, media_type=APPLY, query=query)

    async def delete(self, path: str, options: Json | None = None) -> Json:
        """DELETE, with `DeleteOptions` where given."""
        return await self._request("DELETE", path, body=options)

    async def text(self, path: str) -> str:
        """A plain-text answer, such as that of ``/readyz``."""
        async with self._open().get(self.connection.server + path) as answer:
            content = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, "", content[:500])
            return content

    async def watch(self, path: str, resource_version: str, *, seconds: int = 300) -> AsyncIterator[tuple[str, Json]]:
        """Events after `resource_version` until the server ends the watch (after `seconds` at the latest).

        Raises:
            ApiError: with status 410 where the version is too old: list again.
        """
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=seconds + 30.0, sock_connect=10.0)
        async with self._open().get(self.connection.server + path, params=query, timeout=timeout) as answer:
            if answer.status >= 400:
                raise _failure(answer.status, await answer.text())
            buffered = b""
            async for chunk in answer.content.iter_any():
                *lines, buffered = (buffered + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))
                    yield event["type"], event["object"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        media_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": media_type}
        url = self.connection.server + path
        async with self._open().request(method, url, data=data, headers=headers, params=query or None) as answer:
            content = await answer.text()
            if answer.status >= 400:
                raise _failure(answer.status, content)
            result: Json = json.loads(content) if content else {}
            return result

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise SandboxError("KubernetesApi is used outside of its `async with`")
        return self._session


def _failure(status: int, content: str) -> ApiError:
    body: Json = {}
    with contextlib.suppress(ValueError):
        parsed = json.loads(content)
        body = parsed if isinstance(parsed, dict) else {}
    return ApiError(status, str(body.get("reason", "")), str(body.get("message", content[:500])))


def _pem(section: Json, name: str) -> str | None:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data).decode()
    if path := section.get(name):
        return Path(path).read_text()
    return None
