"""Snapshots: the engine can restore but not make them, so one is a sparse archive of a flushed collection folder.

Like the server's, a snapshot holds points, vectors, indexes, configuration and metadata, but no aliases. It is no
file that a real server could read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx
from qdrant_client.http import models
from starlette.responses import FileResponse

from searchops_sandbox.qdrant.access import Need
from searchops_sandbox.qdrant.errors import ApiError, bad_request, not_found, unsupported, wrong_input
from searchops_sandbox.qdrant.observe import PEER_ID
from searchops_sandbox.qdrant.store import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from searchops_sandbox.qdrant.calls import Call
    from searchops_sandbox.qdrant.collection import Collection
    from searchops_sandbox.qdrant.store import Store

SERVER_FOLDER = "/qdrant/snapshots/"
"""Where the server's image keeps snapshots; in a `file://` location the double reads it as its own folder."""

_DOWNLOAD_SECONDS = 60.0


def _folder(store: Store, collection: Collection) -> Path:
    return store.snapshots_folder / store.folder_for(collection.name).name


def _describe(path: Path) -> dict[str, Any]:
    checksum = path.with_suffix(".snapshot.checksum")
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return {
        "name": path.name,
        "creation_time": made.strftime("%Y-%m-%dT%H:%M:%S"),
        "size": path.stat().st_size,
        "checksum": checksum.read_text() if checksum.exists() else None,
    }


def _archive(arguments: list[str]) -> None:
    program = shutil.which("tar")
    if program is None:
        raise unsupported("snapshots on a machine without tar")
    done = subprocess.run([program, *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        raise bad_request(f"Failed to handle the snapshot archive: {done.stderr.decode(errors='replace').strip()}")


def create(call: Call) -> Any:
    """`POST /collections/{name}/snapshots`."""
    collection = call.service.collection(call.access, call.name, Need.MANAGE)
    if not call.flag("wait", default=True):
        raise unsupported("snapshots with wait=false")
    folder = _folder(call.service.store, collection)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S")
    path = folder / f"{collection.name}-{PEER_ID}-{stamp}.snapshot"
    collection.close()
    draft = path.with_suffix(".draft")
    _archive(["--create", "--sparse", "--file", str(draft), "--directory", str(collection.folder), "."])
    path.with_suffix(".snapshot.checksum").write_text(_sha256(draft))
    draft.rename(path)
    collection.open()
    collection.snapshots_created += 1
    return _describe(path)


def listed(call: Call) -> Any:
    """`GET /collections/{name}/snapshots`."""
    collection = call.service.collection(call.access, call.name, Need.EXTRAS)
    folder = _folder(call.service.store, collection)
    return [_describe(path) for path in sorted(folder.glob("*.snapshot"))]


def download(call: Call) -> Any:
    """`GET /collections/{name}/snapshots/{snapshot}`."""
    collection = call.service.collection(call.access, call.name, Need.EXTRAS)
    return FileResponse(_existing(call, collection), media_type="application/octet-stream")


def delete(call: Call) -> Any:
    """`DELETE /collections/{name}/snapshots/{snapshot}`."""
    collection = call.service.collection(call.access, call.name, Need.MANAGE)
    path = _existing(call, collection)
    path.unlink()
    path.with_suffix(".snapshot.checksum").unlink(missing_ok=True)
    return True


def _existing(call: Call, collection: Collection) -> Path:
    wanted = str(call.request.path_params["snapshot"])
    path = _folder(call.service.store, collection) / wanted
    if "/" in wanted or path.suffix != ".snapshot" or not path.exists():
        raise not_found(f"Snapshot {wanted} not found")
    return path


async def recover(call: Call) -> Any:
    """`PUT /collections/{name}/snapshots/recover`: from a file of this machine or another cell's URL."""
    call.access.check_global(manage=True)
    body = call.body(models.SnapshotRecover)
    with _new_scratch(call) as scratch:
        archive = await _fetch(call.service.store, body, scratch)
        _restore(call, archive, scratch, checksum=body.checksum, priority=body.priority)
    return True


def upload(call: Call) -> Any:
    """`POST /collections/{name}/snapshots/upload`: from the file `snapshot` of a multipart body."""
    call.access.check_global(manage=True)
    if not call.flag("wait", default=True):
        raise unsupported("snapshots with wait=false")
    query = call.request.query_params
    try:
        priority = models.SnapshotPriority(query["priority"]) if "priority" in query else None
    except ValueError as error:
        raise ApiError(400, f"Format error in query: unknown variant `{query['priority']}`") from error
    content = _uploaded(call.request.headers.get("content-type", ""), call.body_bytes)
    with _new_scratch(call) as scratch:
        archive = scratch / "uploaded.snapshot"
        archive.write_bytes(content)
        _restore(call, archive, scratch, checksum=query.get("checksum"), priority=priority)
    return True


@contextlib.contextmanager
def _new_scratch(call: Call) -> Iterator[Path]:
    store = call.service.store
    check_name(call.name)
    if call.name in store.aliases:
        raise wrong_input(f"Can't create collection with name {call.name}. Alias with the same name already exists")
    with tempfile.TemporaryDirectory(dir=store.folder_for("x").parent.parent) as scratch:
        yield Path(scratch)


def _restore(
    call: Call, archive: Path, scratch: Path, *, checksum: str | None, priority: models.SnapshotPriority | None
) -> None:
    """Put the archive in the place of the collection, where its checksum is the one that is wanted.

    With one node there is no replica to prefer over a snapshot: where a collection is there, only `snapshot` says
    unmistakably that it goes.
    """
    store, actual = call.service.store, _sha256(archive)
    if checksum is not None and checksum != actual:
        raise wrong_input(f"Snapshot checksum mismatch: expected {checksum}, got {actual}")
    if call.name in store.collections and priority is models.SnapshotPriority.REPLICA:
        raise unsupported("priority=replica over a collection that is there")
    prepared = scratch / "collection"
    prepared.mkdir()
    _archive(["--extract", "--sparse", "--file", str(archive), "--directory", str(prepared)])
    state_file = prepared / "config.json"
    if not state_file.exists():
        raise bad_request("Failed to restore: the archive holds no collection of this double")
    store.adopt(call.name, prepared, json.loads(state_file.read_text()))


def _uploaded(content_type: str, body: bytes) -> bytes:
    """The file `snapshot` of a multipart body.

    Raises:
        ApiError: 400 where there is none.
    """
    header = EmailMessage()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or boundary is None:
        raise bad_request("Content type error: wanted multipart/form-data with a boundary")
    mark = b"--" + boundary.encode()
    for part in (b"\r\n" + body).split(b"\r\n" + mark)[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="snapshot"' in head:
            return content
    raise bad_request("Multipart error: field `snapshot` is required")


def _local(store: Store, location: str) -> Path:
    path = Path(location)
    if location.startswith(SERVER_FOLDER):
        path = store.snapshots_folder / location.removeprefix(SERVER_FOLDER)
    if not path.is_file():
        raise bad_request(f"Snapshot file {location!r} does not exist")
    return path


async def _fetch(store: Store, body: models.SnapshotRecover, scratch: Path) -> Path:
    location = urlsplit(body.location)
    if location.scheme == "file":
        return _local(store, unquote(location.path))
    if location.scheme not in {"http", "https"}:
        raise ApiError(422, f"Validation error in JSON body: [location: scheme {location.scheme!r} is not supported]")
    headers = {"api-key": body.api_key} if body.api_key else {}
    async with httpx.AsyncClient(timeout=_DOWNLOAD_SECONDS) as client:
        try:
            response = await client.get(body.location, headers=headers)
        except httpx.HTTPError as error:
            raise bad_request(f"Failed to download snapshot from {body.location}: {type(error).__name__}") from error
    if response.status_code != 200:
        raise bad_request(f"Failed to download snapshot from {body.location}: status - {response.status_code}")
    path = scratch / "downloaded.snapshot"
    path.write_bytes(response.content)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


_SNAPSHOTS = "/collections/{name}/snapshots"
UPLOAD = _SNAPSHOTS + "/upload"
ROUTES: list[tuple[str, str, Callable[[Call], Any]]] = [
    ("POST", _SNAPSHOTS, create),
    ("GET", _SNAPSHOTS, listed),
    ("PUT", _SNAPSHOTS + "/recover", recover),
    ("POST", UPLOAD, upload),
    ("GET", _SNAPSHOTS + "/{snapshot}", download),
    ("DELETE", _SNAPSHOTS + "/{snapshot}", delete),
]
