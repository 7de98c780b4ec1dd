"""What end-to-end tests do on a running platform: apply, wait for what an object says of itself, search."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from searchops_sandbox.demo.buckets import CATALOGUES
from searchops_sandbox.demo.platform import FLEET
from searchops_sandbox.kubernetes_api import ApiError
from searchops_sandbox.processes import SandboxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    import aiohttp

    from searchops_sandbox.demo.platform import Platform
    from searchops_sandbox.qdrant.cell import QdrantCell

Json = dict[str, Any]
T = TypeVar("T")
GROUP: Final = "searchops.dev/v1alpha1"
MERCHANTS: Final = "merchants-e2e"
UNPROMOTED: Final = "not-yet"
WAIT_SECONDS: Final = 180.0
POLL_SECONDS: Final = 0.3


def tenant_manifest(
    name: str,
    *,
    region: str,
    model: str = UNPROMOTED,
    policy: str = "Retain",
    undelete_window: str = "72h",
    isolation: str = "Collection",
) -> Json:
    """A merchant of fasteners with a storefront and an indexer."""
    return {
        "apiVersion": GROUP,
        "kind": "SearchTenant",
        "metadata": {"name": name, "namespace": MERCHANTS},
        "spec": {
            "model": {"name": model},
            "isolation": isolation,
            "placement": {"cellSelector": {"matchLabels": {"region": region}}},
            "languages": ["en"],
            "fields": [
                {"name": "sku", "type": "keyword", "role": "Code"},
                {"name": "title", "type": "text", "role": "Title"},
                {"name": "category", "type": "keyword", "role": "Filter"},
            ],
            "document": "{title}. {brand}. {attributes}",
            "retrieval": {"profile": "plain"},
            "quotas": {
                "maxPoints": 20000,
                "maxVectorMegabytes": 200,
                "searchesPerMinute": 60000,
                "writesPerMinute": 60000,
            },
            "access": [
                {"name": "storefront", "role": "Search", "secretName": f"{name}-storefront"},
                {"name": "indexer", "role": "Index", "secretName": f"{name}-indexer"},
            ],
            "deletionPolicy": policy,
            "undeleteWindow": undelete_window,
        },
    }


def model_manifest(name: str, *, checkpoint: Path, digest: str, holdout: Path, holdout_digest: str) -> Json:
    """A model on both pools, gated on one holdout."""
    return {
        "apiVersion": GROUP,
        "kind": "EmbeddingModel",
        "metadata": {"name": name},
        "spec": {
            "source": {"uri": f"file://{checkpoint}", "digest": digest},
            "engine": {
                "backend": "Auto",
                "precision": "Auto",
                "maxBatch": 64,
                "buckets": [16, 32],
                "worker": {"podTemplate": "cpu"},
            },
            "serving": {"pool": "default", "canaryPool": "canary"},
            "gate": {
                "profile": "plain",
                "holdouts": [{"name": "core", "uri": f"file://{holdout}", "digest": holdout_digest}],
                "worker": {"podTemplate": "cpu"},
            },
            "rollout": {"waves": [{"name": "all", "percent": 100}], "rollbackWindow": "1h"},
        },
    }


def unpromoted_model() -> Json:
    """A paused model: tenants that name it serve the lexical legs and are Ready."""
    nothing = Path("/nothing")
    digest = "sha256:" + "0" * 64
    manifest = model_manifest(UNPROMOTED, checkpoint=nothing, digest=digest, holdout=nothing, holdout_digest=digest)
    manifest["spec"]["paused"] = True
    return manifest


@dataclass
class Fleet:
    """A platform with its merchants' namespace and one HTTP session."""

    platform: Platform
    session: aiohttp.ClientSession
    tokens: dict[str, str] = field(default_factory=dict, repr=False)

    async def apply(self, *manifests: Json) -> None:
        """Server-side apply, as Argo CD does."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        await self.platform.apply(json.dumps(items))

    async def get(self, plural: str, name: str) -> Json:
        """One object of ours; empty where there is none."""
        async with self.platform.sandbox.api() as api:
            try:
                return await api.get(_path(plural, name))
            except ApiError as error:
                if error.status == 404:
                    return {}
                raise

    async def delete(self, plural: str, name: str) -> None:
        """Delete an object and wait until it is gone: a finalizer that hangs fails here."""
        async with self.platform.sandbox.api() as api:
            await api.delete(_path(plural, name))

        async def gone() -> bool:
            return not await self.get(plural, name)

        await self.until(f"{plural}/{name} is gone", gone)

    async def until(
        self,
        what: str,
        probe: Callable[[], Awaitable[T]],
        *,
        seconds: float = WAIT_SECONDS,
        every: float = POLL_SECONDS,
    ) -> T:
        """Poll until the probe answers something true; that is returned.

        Raises:
            SandboxError: not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = await probe()
            if found:
                return found
            if time.monotonic() > deadline:
                raise SandboxError(f"not within {seconds:g} s: {what}; seen {found!r}")
            await asyncio.sleep(every)

    async def condition(
        self,
        plural: str,
        name: str,
        kind: str,
        status: str,
        reason: str | None = None,
        *,
        seconds: float = WAIT_SECONDS,
    ) -> Json:
        """Wait for a condition of the current generation; returns it.

        Raises:
            SandboxError: it did not come; with the conditions that were there.
        """
        last: Json = {}

        async def probe() -> Json | None:
            nonlocal last
            last = await self.get(plural, name)
            found = condition_of(last, kind)
            wanted = found.get("status") == status and reason in (None, found.get("reason"))
            return found if wanted else None

        try:
            found = await self.until(f"{plural}/{name} {kind}={status}/{reason}", probe, seconds=seconds)
        except SandboxError as error:
            seen = json.dumps(last.get("status", {}), indent=1)
            raise SandboxError(
                f"{plural}/{name} has no {kind}={status}/{reason}; its status is {seen}\n{error}"
            ) from error
        assert found is not None
        return found

    async def token(self, tenant: str, entry: str) -> str:
        """The token of an access Secret."""
        name = f"{tenant}-{entry}"
        if name not in self.tokens:
            self.tokens[name] = (await self.platform.secret(MERCHANTS, name))["token"]
        return self.tokens[name]

    async def gateway(
        self, method: str, tenant: str, path: str, token: str, *, data: bytes | None = None, body: Json | None = None
    ) -> tuple[int, Json]:
        """One request to the gateway with any token."""
        url = f"{self.platform.gateway_url}/v1/tenants/{MERCHANTS}.{tenant}{path}"
        headers = {"Authorization": f"Bearer {token}"}
        if data is not None:
            headers["Content-Type"] = "application/x-ndjson"
        async with self.session.request(method, url, headers=headers, data=data, json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    async def index(self, tenant: str, lines: bytes | None = None) -> tuple[int, Json]:
        """Index products as the tenant's own indexer; the English fasteners where none are given."""
        content = lines if lines is not None else (CATALOGUES / "fasteners-en.jsonl").read_bytes()
        return await self.gateway("PUT", tenant, "/products", await self.token(tenant, "indexer"), data=content)

    async def hits(self, tenant: str, query: str = "M12 hex nut A2-70") -> list[str]:
        """Ids of a search as the tenant's own storefront.

        Raises:
            SandboxError: it was not answered.
        """
        token = await self.token(tenant, "storefront")
        status, answer = await self.gateway("POST", tenant, "/search", token, body={"query": query, "limit": 5})
        if status != 200:
            raise SandboxError(f"{tenant}: {query!r} answered {status}: {answer}")
        return [str(hit["id"]) for hit in answer["hits"]]

    async def ask_cell(
        self, cell: QdrantCell, method: str, path: str, *, key: str = "", body: Json | None = None
    ) -> Json:
        """One request to a cell with its own key or another; the answer carries its HTTP status as ``http``."""
        headers = {"api-key": key or cell.api_key}
        async with self.session.request(method, f"{cell.rest_url}{path}", headers=headers, json=body) as answer:
            content = await answer.json(content_type=None)
            return {**content, "http": answer.status}

    async def collections(self, cell: QdrantCell) -> set[str]:
        """Names of every collection of a cell."""
        answer = await self.ask_cell(cell, "GET", "/collections")
        return {item["name"] for item in answer["result"]["collections"]}

    async def aliases(self, cell: QdrantCell) -> dict[str, str]:
        """Alias to collection."""
        answer = await self.ask_cell(cell, "GET", "/aliases")
        return {item["alias_name"]: item["collection_name"] for item in answer["result"]["aliases"]}

    async def served(self, url: str) -> dict[str, str]:
        """Triton's repository index: state by model, of those that were ever loaded."""
        async with self.session.post(f"{url}/v2/repository/index", json={}) as answer:
            return {item["name"]: item.get("state", "") for item in await answer.json(content_type=None)}


def alias_of(tenant: str) -> str:
    """The alias under which a tenant of these tests is searched."""
    return f"{FLEET}.{MERCHANTS}.{tenant}"


def condition_of(item: Json, kind: str) -> Json:
    """A condition that was seen for the current generation; empty where there is none."""
    status = item.get("status", {})
    if status.get("observedGeneration") != item.get("metadata", {}).get("generation"):
        return {}
    found: Iterable[Json] = (one for one in status.get("conditions", []) if one["type"] == kind)
    return next(iter(found), {})


def _path(plural: str, name: str) -> str:
    namespaced = "" if plural == "embeddingmodels" else f"/namespaces/{MERCHANTS}"
    return f"/apis/{GROUP}{namespaced}/{plural}/{name}"
