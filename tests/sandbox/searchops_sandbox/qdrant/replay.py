"""Replays recorded exchanges against a server and compares status, error shape and effect."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

RECORDED_AT = 1795549743
"""Unix time of the recording of the tokens that expire; their `exp` moves with the clock."""

IGNORED = frozenset(
    {
        "operation_id", "version", "commit", "title", "segments_count", "indexed_vectors_count", "peer_id", "time",
        "creation_time", "size", "checksum", "startup", "init_time_ms", "idle_segments", "warnings", "peers", "leader",
        "term", "last_update",
    }
)  # fmt: skip
"""Response fields that are identities, sizes or versions, not effects."""

EXACT = frozenset(
    {"metadata", "payload_schema", "vectors", "sparse_vectors", "payload", "shard_keys", "strict_mode_config"}
)
"""Response fields that must hold nothing beyond what was recorded."""

SCORE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Server:
    """A server under contract.

    Attributes:
        url: REST base URL.
        grpc_port: gRPC port on the same host.
        api_key: its key.
        double: whether it is the sandbox's double.
    """

    url: str
    grpc_port: int
    api_key: str
    double: bool


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    file: str
    index: int
    note: str
    request: dict[str, Any]
    response: dict[str, Any]

    @property
    def key(self) -> str:
        """Stable name: file and position."""
        return f"{self.file}[{self.index}]"


@dataclass(frozen=True)
class Answer:
    """What the server under test said."""

    status: int
    headers: dict[str, str]
    body: Any


def load(folder: Path, files: tuple[str, ...]) -> list[Exchange]:
    """The exchanges of these files, in order."""
    return [
        Exchange(name, index, entry["note"], entry["request"], entry["response"])
        for name in files
        for index, entry in enumerate(json.loads((folder / f"{name}.json").read_text()))
    ]


class Replayer:
    """Sends recorded requests, with snapshot names and expiry times carried over to the present.

    Args:
        client: bound to the server under test, without credentials.
        api_key: its key.
    """

    def __init__(self, client: httpx.Client, api_key: str) -> None:
        self._client = client
        self._api_key = api_key
        self._names: dict[str, str] = {}

    def send(self, exchange: Exchange) -> Answer:
        """Send one request and remember the names that its answer coins."""
        request = exchange.request
        content = json.dumps(request["body"]) if "body" in request else None
        path = request["path"]
        for recorded, present in self._names.items():
            path = path.replace(recorded, present)
            content = content.replace(recorded, present) if content else content
        headers = self._credentials(request)
        if content is not None:
            headers["content-type"] = "application/json"
        response = self._client.request(request["method"], path, content=content, headers=headers)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        body = response.json() if is_json else response.text
        self._learn(exchange, body)
        return Answer(response.status_code, dict(response.headers), body)

    def _credentials(self, request: dict[str, Any]) -> dict[str, str]:
        if request["auth"] == "none":
            return {}
        if request["auth"] == "key":
            return {"api-key": self._api_key}
        claims = dict(request["claims"])
        if "exp" in claims:
            claims["exp"] += int(time.time()) - RECORDED_AT
        return {"authorization": f"Bearer {jwt.encode(claims, self._api_key, algorithm='HS256')}"}

    def _learn(self, exchange: Exchange, body: Any) -> None:
        recorded = exchange.response["body"]
        if not isinstance(recorded, dict) or not isinstance(body, dict):
            return
        said, got = recorded.get("result"), body.get("result")
        if isinstance(said, dict) and isinstance(got, dict) and str(said.get("name", "")).endswith(".snapshot"):
            self._names[said["name"]] = str(got.get("name"))


def differences(exchange: Exchange, answer: Answer, *, tied: bool = False) -> list[str]:
    """What is different from the recording; empty when the server behaves as recorded.

    Args:
        exchange: the recording.
        answer: what the server under test said.
        tied: the hits have equal scores, so that which of them are returned is chance.
    """
    recorded = exchange.response
    found = []
    if answer.status != recorded["status"]:
        return [f"status {answer.status} instead of {recorded['status']}: {str(answer.body)[:300]}"]
    if "retry-after" in recorded:
        wait = int(answer.headers.get("retry-after", "0"))
        if not 0 < wait <= int(recorded["retry-after"]):
            found.append(f"Retry-After {wait} instead of at most {recorded['retry-after']}")
    body = recorded["body"]
    if isinstance(body, str) or isinstance(answer.body, str):
        return found + _text(body, answer.body)
    if recorded["status"] >= 400:
        said = answer.body.get("status")
        shaped = isinstance(said, dict) and isinstance(said.get("error"), str)
        return found if shaped else [*found, f"no error envelope: {answer.body}"]
    _compare(body, answer.body, "$", found, tied=tied)
    return found


def _text(recorded: Any, got: Any) -> list[str]:
    if not isinstance(recorded, str) or not isinstance(got, str):
        return [f"{type(got).__name__} instead of {type(recorded).__name__}: {str(got)[:300]}"]
    if recorded.startswith("# HELP"):
        wanted = {line.split()[2] for line in recorded.splitlines() if line.startswith("# TYPE process_")}
        wanted |= {"app_info", "collections_total", "system_max_mmaps", "memory_resident_bytes"}
        missing = wanted - {line.split()[2] for line in got.splitlines() if line.startswith("# TYPE")}
        return [f"metrics missing: {sorted(missing)}"] if missing else []
    return [] if recorded == got else [f"{got!r} instead of {recorded!r}"]


def _compare(recorded: Any, got: Any, path: str, found: list[str], *, tied: bool) -> None:
    if isinstance(recorded, dict):
        _compare_objects(recorded, got, path, found, tied=tied)
    elif isinstance(recorded, list):
        if not isinstance(got, list) or len(got) != len(recorded):
            found.append(f"{path}: {got!r} instead of {recorded!r}")
            return
        for index, (one, other) in enumerate(zip(recorded, got, strict=True)):
            _compare(one, other, f"{path}[{index}]", found, tied=tied)
    elif not _same(recorded, got):
        found.append(f"{path}: {got!r} instead of {recorded!r}")


def _compare_objects(recorded: dict[str, Any], got: Any, path: str, found: list[str], *, tied: bool) -> None:
    if not isinstance(got, dict):
        found.append(f"{path}: {got!r} instead of an object")
        return
    if path.rsplit(".", 1)[-1] in EXACT and set(got) != set(recorded):
        found.append(f"{path}: keys {sorted(got)} instead of {sorted(recorded)}")
    for name, value in recorded.items():
        machine = name == "id" and "app" in recorded
        if name in IGNORED or machine or (tied and name == "id"):
            continue
        if name not in got:
            found.append(f"{path}.{name} is missing")
        else:
            _compare(value, got[name], f"{path}.{name}", found, tied=tied)


def _same(recorded: Any, got: Any) -> bool:
    if isinstance(recorded, float) and isinstance(got, int | float):
        return math.isclose(recorded, got, rel_tol=SCORE_TOLERANCE, abs_tol=SCORE_TOLERANCE)
    if isinstance(recorded, str) and recorded.endswith(".snapshot"):
        return str(got).endswith(".snapshot")
    return bool(recorded == got)
