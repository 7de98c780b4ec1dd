"""The servers of the contract suite, and a small REST client that says what it expects and shows what it got."""

from __future__ import annotations

import os
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import httpx
import jwt
from qdrant_client import AsyncQdrantClient

if TYPE_CHECKING:
    from types import TracebackType

    from searchops_sandbox.qdrant.replay import Server


IN_CLUSTER_MODE = "double in cluster mode"


def servers() -> list[str]:
    """Under contract: the double always, a real server where `QDRANT_URL` names one."""
    return ["double", "real"] if os.environ.get("QDRANT_URL") else ["double"]


def servers_in_cluster_mode() -> list[str]:
    """For tests of shard keys: a real server is one of them where it says that it is in cluster mode."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        return [IN_CLUSTER_MODE]
    answer = httpx.get(f"{url.rstrip('/')}/cluster", headers={"api-key": os.environ.get("QDRANT_API_KEY", "")})
    enabled = answer.raise_for_status().json()["result"]["status"] == "enabled"
    return [IN_CLUSTER_MODE, *(["real"] if enabled else [])]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


class Rest:
    """The server's REST API with one credential.

    Args:
        server: whom to ask.
        headers: credentials.
    """

    def __init__(self, server: Server, headers: dict[str, str]) -> None:
        self.server = server
        self._client = httpx.Client(base_url=server.url, headers=headers, timeout=60.0)
        self.names: list[str] = []

    def close(self) -> None:
        self._client.close()

    def raw(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self._client.request(method, path, json=body)

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        response = self.raw(method, path, body)
        _require(response.status_code == 200, f"{method} {path}: {response.status_code} {response.text}")
        return response.json()["result"]

    def refused(self, status: int, method: str, path: str, body: Any = None) -> httpx.Response:
        response = self.raw(method, path, body)
        _require(response.status_code == status, f"{method} {path}: {response.status_code} {response.text}")
        return response

    def collection(self, **more: Any) -> str:
        """A fresh collection with a dense and a sparse vector; removed at the end of the test."""
        name = f"contract-{uuid.uuid4().hex[:12]}"
        self.names.append(name)
        body = {
            "vectors": {"d-old": {"size": 4, "distance": "Cosine"}},
            "sparse_vectors": {"lex": {"modifier": "idf"}},
            "optimizers_config": {"default_segment_number": 1},
            **more,
        }
        self.ok("PUT", f"/collections/{name}", body)
        return name

    def alias(self, collection: str) -> str:
        """A fresh alias of a collection."""
        name = f"alias-{uuid.uuid4().hex[:12]}"
        self.point_alias(name, collection)
        return name

    def point_alias(self, alias: str, collection: str) -> None:
        action = {"create_alias": {"alias_name": alias, "collection_name": collection}}
        self.ok("POST", "/collections/aliases", {"actions": [action]})

    def fill(self, name: str, ids: range, *, vector: str = "d-old", **payload: Any) -> None:
        points = [{"id": i, "vector": {vector: [1.0, i, 0.5, 0.25]}, "payload": {"n": i, **payload}} for i in ids]
        self.ok("PUT", f"/collections/{name}/points?wait=true", {"points": points})

    def count(self, name: str, only: Any = None) -> int:
        body = {"exact": True} if only is None else {"exact": True, "filter": only}
        return int(self.ok("POST", f"/collections/{name}/points/count", body)["count"])

    def payloads(self, name: str, ids: list[int]) -> dict[int, Any]:
        found = self.ok("POST", f"/collections/{name}/points", {"ids": ids, "with_payload": True})
        return {point["id"]: point["payload"] for point in found}

    def with_token(self, **claims: Any) -> Rest:
        """The same server, asked with a token."""
        token = jwt.encode(claims, self.server.api_key, algorithm="HS256")
        return Rest(self.server, {"authorization": f"Bearer {token}"})


class Connected:
    """An AsyncQdrantClient that speaks gRPC with one credential."""

    def __init__(self, server: Server, credential: str) -> None:
        with warnings.catch_warnings():
            # The library warns that a key travels unencrypted; on the loopback interface it may.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            self.client = AsyncQdrantClient(
                url=server.url,
                grpc_port=server.grpc_port,
                prefer_grpc=True,
                timeout=30,
                check_compatibility=False,
                api_key=credential,
            )

    async def __aenter__(self) -> AsyncQdrantClient:
        return self.client

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.client.close()
