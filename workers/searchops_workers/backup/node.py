"""One node of a cell: its snapshots, its shards, and what a restore writes. Streams both ways, so memory is flat."""

from __future__ import annotations

import json
import ssl
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from searchops_workers.backup.errors import BackupError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_PORT = 6333
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
SNAPSHOT_SECONDS = 3600.0
"""How long a node may be silent while it makes, sends or takes in a snapshot: some are large."""
CHUNK = 1 << 20
ATTEMPTS = 5
BUSY = frozenset({429, 500, 502, 503, 504})
_SAID = 300


@dataclass(frozen=True, slots=True)
class Shards:
    """Shards of a collection as one node tells them.

    Attributes:
        local: ids of the active ones that this node holds.
        every: ids of all, wherever they are.
        peers: peer ids of the nodes that hold any.
        moving: whether any is being transferred, or is here and not active.
    """

    peer: str
    local: frozenset[int]
    every: frozenset[int]
    peers: frozenset[str]
    moving: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on a node; `checksum` is sha256 in hex, or None where the server does not say."""

    name: str
    size: int
    checksum: str | None


class CellNode:
    """Requests to one node.

    Args:
        url: its base URL; the database's own port where it names none.
        token: sent as a header, never part of a message.
        ca_cert: PEM of the authority that its certificate is checked against.
        transport: instead of the network, for tests.
        first_wait: seconds before the first repetition of what may be repeated.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_cert: str | None = None,
        transport: httpx.BaseTransport | None = None,
        first_wait: float = 1.0,
    ) -> None:
        base = httpx.URL(url)
        if urlsplit(url).port is None:
            base = base.copy_with(port=DEFAULT_PORT)
        trusted: ssl.SSLContext | bool = ssl.create_default_context(cadata=ca_cert) if ca_cert else True
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        headers = {"api-key": token} if token else {}
        self.url = str(base)
        self._client = httpx.Client(
            base_url=base, headers=headers, timeout=timeout, verify=trusted, transport=transport
        )
        self._retrying = Retrying(
            retry=retry_if_exception(_passing),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=first_wait, max=20.0, jitter=first_wait),
            reraise=True,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -- reads, repeated where no answer came ------------------------------------------------------------------

    def version(self) -> str:
        """What the server calls its version."""
        return str(self._again("GET", "/", whole=True).get("version", ""))

    def describe(self, collection: str) -> dict[str, Any] | None:
        """The collection's description as the server gives it, or None where there is none."""
        try:
            found: dict[str, Any] = self._again("GET", _path(collection))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    def count(self, collection: str) -> int:
        """Exact number of points."""
        return int(self._again("POST", _path(collection, "points/count"), {"exact": True})["count"])

    def shards(self, collection: str) -> Shards:
        """Which shards there are, and which are here."""
        found = self._again("GET", _path(collection, "cluster"))
        local, remote = found.get("local_shards", []), found.get("remote_shards", [])
        active = {int(item["shard_id"]) for item in local if item.get("state") == "Active"}
        idle = not found.get("shard_transfers") and len(active) == len(local)
        peer = str(found.get("peer_id", 0))
        peers = {str(item["peer_id"]) for item in remote} | ({peer} if local else set())
        every = {int(item["shard_id"]) for item in (*local, *remote)}
        return Shards(peer, frozenset(active), frozenset(every), frozenset(peers), not idle)

    def snapshots(self, collection: str) -> tuple[Snapshot, ...]:
        """Snapshots of the collection that are on this node."""
        return tuple(_snapshot(item) for item in self._again("GET", _path(collection, "snapshots")))

    def aliases(self) -> dict[str, str]:
        """Alias -> collection of the whole cell."""
        found = self._again("GET", "/aliases")["aliases"]
        return {str(item["alias_name"]): str(item["collection_name"]) for item in found}

    def collections(self) -> frozenset[str]:
        """Names of every collection of the cell."""
        return frozenset(str(item["name"]) for item in self._again("GET", "/collections")["collections"])

    @contextmanager
    def download(self, collection: str, snapshot: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a snapshot, in pieces; a transfer that breaks off raises BackupError."""
        path = _path(collection, f"snapshots/{quote(snapshot, safe='')}")
        plain = {"accept-encoding": "identity"}
        with self._answered(snapshot), self._client.stream("GET", path, headers=plain, timeout=_long()) as response:
            if response.status_code != 200:
                response.read()
                raise _refused(response, f"download {snapshot}")
            yield self._pieces(response, snapshot)

    def _pieces(self, response: httpx.Response, snapshot: str) -> Iterator[bytes]:
        with self._answered(snapshot):
            yield from response.iter_bytes(CHUNK)

    @contextmanager
    def _answered(self, snapshot: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise BackupError(f"{self.url}: downloading {snapshot} broke off: {_words(error)}") from error

    # -- writes ------------------------------------------------------------------------------------------------

    def snapshot(self, collection: str) -> Snapshot:
        """Make a snapshot of this node's shards; sent once, since each try that is carried out makes one."""
        return _snapshot(self._send("POST", _path(collection, "snapshots?wait=true"), timeout=_long()))

    def remove_snapshot(self, collection: str, snapshot: str) -> None:
        """Remove one snapshot from the server; one that is gone is success."""
        try:
            self._again("DELETE", _path(collection, f"snapshots/{quote(snapshot, safe='')}?wait=true"))
        except Refused as error:
            if error.status != 404:
                raise

    def recover(self, collection: str, content: IO[bytes], *, checksum: str, priority: str = "snapshot") -> None:
        """Recover from an uploaded snapshot; the server compares the checksum before it takes anything in."""
        path = _path(collection, f"snapshots/upload?wait=true&priority={priority}&checksum={checksum}")
        files = {"snapshot": ("part.snapshot", content, "application/octet-stream")}
        self._send("POST", path, files=files, timeout=_long())

    def create_marker(self, collection: str, metadata: Mapping[str, str]) -> None:
        """Create a collection that only carries metadata; who was first is read by the caller."""
        try:
            self._send("PUT", _path(collection), {"vectors": {}, "metadata": dict(metadata)})
        except Refused as error:
            if error.status != 409:
                raise

    def patch_metadata(self, collection: str, metadata: Mapping[str, str | None]) -> None:
        """Set flat metadata keys; None removes one. Read back."""
        self._again("PATCH", _path(collection), {"metadata": dict(metadata)})
        found = metadata_of(self.describe(collection))
        wrong = [key for key, value in metadata.items() if found.get(key) != value]
        if wrong:
            raise BackupError(f"{self.url}: {collection} does not show {', '.join(wrong)} as written; try again")

    def point_alias(self, alias: str, collection: str) -> None:
        """Create one alias. Read back."""
        action = {"create_alias": {"collection_name": collection, "alias_name": alias}}
        self._again("POST", "/collections/aliases", {"actions": [action]})
        if self.aliases().get(alias) != collection:
            raise BackupError(f"{self.url}: alias {alias} does not show {collection} as written; try again")

    def drop(self, collection: str) -> None:
        """Drop a collection whose metadata the caller has just read; a missing one is success."""
        self._again("DELETE", _path(collection))
        if self.describe(collection) is not None:
            raise BackupError(f"{self.url}: {collection} is there after it was dropped; try again")

    # -- within ------------------------------------------------------------------------------------------------

    def _again(self, method: str, path: str, body: Any = None, *, whole: bool = False) -> Any:
        """A request that may be repeated."""
        return self._retrying(self._send, method, path, body, whole=whole)

    def _send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        files: Any = None,
        timeout: httpx.Timeout | None = None,
        whole: bool = False,
    ) -> Any:
        more: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        try:
            response = self._client.request(method, path, json=body, files=files, **more)
        except httpx.HTTPError as error:
            raise BackupError(f"{self.url} gave no answer to {method} {path}: {_words(error)}") from error
        if response.status_code >= 300:
            raise _refused(response, f"{method} {path}")
        try:
            answer = response.json()
        except ValueError as error:
            raise BackupError(f"{self.url} answered {method} {path} with what is no JSON") from error
        return answer if whole else answer["result"]


def open_nodes(url: str, others: tuple[str, ...], token: str, ca_cert: str | None) -> tuple[CellNode, ...]:
    """Every node of a cell."""
    return tuple(CellNode(each, token, ca_cert=ca_cert) for each in (url, *others))


def metadata_of(description: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata of a collection's description; empty where there is none."""
    config = (description or {}).get("config") or {}
    return dict(config.get("metadata") or {})


def _path(collection: str, rest: str = "") -> str:
    path = f"/collections/{quote(collection, safe='@.-_')}"
    return f"{path}/{rest}" if rest else path


def _long() -> httpx.Timeout:
    return httpx.Timeout(SNAPSHOT_SECONDS, connect=CONNECT_SECONDS)


def _snapshot(item: Mapping[str, Any]) -> Snapshot:
    return Snapshot(str(item["name"]), int(item["size"]), item.get("checksum") or None)


def _passing(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.status in BUSY
    return type(error) is BackupError


def _refused(response: httpx.Response, what: str) -> Refused:
    text = response.text
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["status"]["error"])
    url = response.request.url
    said = f"{url.scheme}://{url.netloc.decode()} refused {what}: {response.status_code} {text[:_SAID]}"
    return Refused(response.status_code, said)


def _words(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()[:_SAID]
