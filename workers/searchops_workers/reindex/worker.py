"""The reindex Job's entry: one slice of one tenant."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from searchops.api.tasks import (
    EXIT_BAD_MODEL,
    EXIT_BAD_TASK,
    EXIT_CELL_FULL,
    EXIT_OK,
    EXIT_RETRY,
    EXIT_SOURCE_UNREADABLE,
    EXIT_TOO_MANY_FAILURES,
    SLICE_VARIABLE,
    TOKEN_VARIABLE,
    ReindexTask,
    SliceResult,
)
from searchops_workers.answers import answer
from searchops_workers.encoders.errors import EncoderError, EncoderRefused
from searchops_workers.encoders.triton import PooledEncoder, TritonTextEncoder
from searchops_workers.engines.stages import BuildError
from searchops_workers.engines.storage import read_bytes, write_bytes
from searchops_workers.reindex.cell_nodes import ANY_NODE, NextNode
from searchops_workers.reindex.patience import is_full
from searchops_workers.reindex.pipeline import IN_FLIGHT, Pipeline, Tally
from searchops_workers.reindex.sides import BlueGreenSide, NamedVectorSide, Side
from searchops_workers.retrieval.analyser import VERSIONS, AnalyserVersionUnknown
from searchops_workers.retrieval.documents import ProductError, product_of
from searchops_workers.retrieval.offline import CatalogueError, read_catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from searchops.api.shared import SliceAddress
    from searchops.api.tasks import CellAddress

SAMPLES = 24
MOST_IN_FLIGHT = 8
REQUEST_SECONDS = 60
MESSAGE = 1024


class SourceUnreadable(RuntimeError):  # noqa: N818 - named for what is the case
    """The catalogue could not be read."""


def run_reindex(task: ReindexTask, environment: Mapping[str, str] = os.environ) -> int:
    """Run one slice and answer; returns the exit code."""
    text = environment.get(SLICE_VARIABLE, "")
    if not text.isdecimal() or int(text) >= task.slices:
        return _say(f"{SLICE_VARIABLE} is {text!r}; wanted a number below {task.slices}", EXIT_BAD_TASK)
    wrong = _incomplete(task)
    if wrong:
        return _say(f"the task cannot be done: {wrong}", EXIT_BAD_TASK)
    index = int(text)
    started = time.monotonic()
    try:
        result = _sliced(task, index, environment.get(TOKEN_VARIABLE, ""))
        result = result.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
        answer(result, f"{task.result_uri}/slice-{index}.json")
    except (EncoderError, OSError, RuntimeError, ApiException, QdrantException) as error:
        return _say(f"slice {index}: {_reason(error)}; it is tried again and goes on from here", EXIT_RETRY)
    return _say(f"slice {index}: {result.embedded} embedded, {result.failed} failed {result.message}", result.exit_code)


def _sliced(task: ReindexTask, index: int, token: str) -> SliceResult:
    """The slice's result; what no second try can mend is a result of its own."""
    try:
        return asyncio.run(_run(task, index, token))
    except EncoderRefused as error:
        return SliceResult(slice=index, exit_code=EXIT_BAD_MODEL, message=str(error)[:MESSAGE])
    except (CatalogueError, SourceUnreadable) as error:
        return SliceResult(slice=index, exit_code=EXIT_SOURCE_UNREADABLE, message=str(error)[:MESSAGE])
    except UnexpectedResponse as error:
        if not is_full(error):
            raise
        named = f"cell {task.cell.name or task.cell.url}"
        message = f"the disk or memory of {named} is exhausted ({_reason(error)}); nothing was tried again"
        return SliceResult(slice=index, exit_code=EXIT_CELL_FULL, message=message[:MESSAGE])


def _incomplete(task: ReindexTask) -> str:
    """What a task lacks, before anything is asked or written; empty where nothing."""
    if task.target.encoder is not None and not task.servers:
        return f"servers is empty; wanted the addresses of those that serve {task.target.encoder}"
    if task.target.encoder is not None and task.target.vector is None:
        return f"target.vector is unset; wanted the vector that {task.target.encoder} fills"
    if task.target.analyser.version not in VERSIONS:
        return f"target.{AnalyserVersionUnknown(task.target.analyser)}"
    if task.strategy == "NamedVector" and task.target.encoder is None:
        return "strategy NamedVector and target.encoder unset; wanted the encoder of the new vector"
    if task.strategy == "BlueGreen" and task.source_collection is None and task.source_uri is None:
        return "sourceCollection and sourceUri are unset; wanted one of them"
    return _mismatched("source", task.source_collection, task.source_slice) or _mismatched(
        "target", task.target_collection, task.target_slice
    )


def _mismatched(side: str, collection: str | None, address: SliceAddress | None) -> str:
    """Why a slice is not one of the collection that the task, and so its token, names; empty where it is."""
    if address is None or address.collection == collection:
        return ""
    return f"{side}Slice is in {address.collection} and {side}Collection is {collection}; wanted one collection"


def _reason(error: Exception) -> str:
    source = error.source if isinstance(error, ResponseHandlingException) else error
    return f"{type(source).__name__}: {' '.join(str(source).split())}"[:MESSAGE]


def _say(text: str, code: int) -> int:
    print(text, flush=True)
    return code


async def _run(task: ReindexTask, index: int, token: str) -> SliceResult:
    client = cell_client(task.cell, token)
    encoder: PooledEncoder | None = None
    try:
        if task.target.encoder is not None:
            encoder = await _encoder(task)
        side = _side(task, index, client)
        rate = task.max_points_per_second / task.slices
        in_flight = min(MOST_IN_FLIGHT, IN_FLIGHT * max(1, len(task.servers)))
        tally = await Pipeline(side, encoder, batch=task.batch, in_flight=in_flight, points_per_second=rate).run()
        if tally.failed:
            _dead_letters(task, index, tally)
        left_out = await side.left_out(tally.dead)
        cosine, sampled = await _verify(side, encoder)
        whole = max(await side.documents(), 1) if tally.failed else 1
    finally:
        await client.close()
        if encoder is not None:
            await encoder.close()
    total = tally.embedded + len(tally.failed)
    code, message = EXIT_OK, _too_many(task, tally, max(total, whole))
    if message:
        code = EXIT_TOO_MANY_FAILURES
    return SliceResult(
        slice=index,
        documents=total,
        embedded=tally.embedded,
        failed=len(tally.failed),
        left_out=left_out,
        sampled=sampled,
        sample_min_cosine=cosine,
        exit_code=code,
        message=message,
    )


def cell_client(
    cell: CellAddress, token: str, *, transport: httpx.AsyncBaseTransport | None = None
) -> AsyncQdrantClient:
    """The cell's client; the token goes as a header, which the library neither warns of nor prints."""
    trusted = ssl.create_default_context(cadata=cell.ca_cert) if cell.ca_cert is not None else True
    return AsyncQdrantClient(
        url=ANY_NODE,
        headers={"api-key": token} if token else None,
        prefer_grpc=False,
        timeout=REQUEST_SECONDS,
        check_compatibility=False,
        transport=transport or NextNode([cell.url, *cell.others], httpx.AsyncHTTPTransport(verify=trusted)),
    )


def _too_many(task: ReindexTask, tally: Tally, of: int) -> str:
    """Why the slice has failed, or nothing.

    The share is taken of the whole slice and not of this run: a slice that was resumed at its end sees little but its
    dead letters. A single one is left to the sum of all slices.
    """
    failed = len(tally.failed)
    if failed <= 1 or failed * 100 <= of * float(task.max_failed_percent):
        return ""
    name, reason = tally.failed[0]
    return (
        f"{failed} of {of} documents of the slice could not be embedded, at most {task.max_failed_percent} % may; "
        f"the first: {name}: {reason}"
    )[:MESSAGE]


async def _encoder(task: ReindexTask) -> PooledEncoder:
    """Every server of the pool, each checked to serve the very build that queries will use."""
    name = task.target.encoder or ""
    members = [
        await TritonTextEncoder.connect(url, name, deadline=REQUEST_SECONDS, manifest_digest=task.manifest_digest)
        for url in task.servers
    ]
    encoder = PooledEncoder(members)
    if task.target.dimension is not None and encoder.dimension != task.target.dimension:
        await encoder.close()
        raise EncoderRefused(
            f"{name} gives {encoder.dimension} dimensions, the binding wants {task.target.dimension}: "
            "it is another model; start the rebuild again with the one that the binding names"
        )
    return encoder


def _side(task: ReindexTask, index: int, client: AsyncQdrantClient) -> Side:
    if task.strategy == "NamedVector":
        return NamedVectorSide(client, task, index)
    products = _catalogue(task.source_uri) if task.source_uri is not None else None
    return BlueGreenSide(client, task, index, products)


def _catalogue(uri: str) -> list[dict[str, Any]]:
    """Products of an NDJSON or Parquet catalogue, every one checked before the first is written."""
    try:
        data = read_bytes(uri)
    except BuildError as error:
        if _absent(error):
            raise SourceUnreadable(f"{uri}: nothing is there; wanted a catalogue; check the URI") from error
        raise
    with tempfile.TemporaryDirectory(prefix="searchops-catalogue-") as folder:
        path = Path(folder) / uri.rsplit("/", 1)[-1]
        path.write_bytes(data)
        if path.suffix == ".parquet":
            return _rows(uri, path)
        try:
            return list(read_catalogue(path))
        except CatalogueError as error:
            raise CatalogueError(str(error).replace(str(path), uri)) from error


def _absent(error: BaseException | None) -> bool:
    """Whether somewhere beneath a failure to read nothing was there."""
    while error is not None:
        if isinstance(error, FileNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _rows(uri: str, path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise SourceUnreadable(f"{uri} is no Parquet file: {error}") from error
    products = []
    for number, row in enumerate(rows, start=1):
        try:
            products.append(product_of({key: value for key, value in row.items() if value is not None}))
        except ProductError as error:
            raise CatalogueError(f"{uri}:{number}: {error}") from error
    return products


def _dead_letters(task: ReindexTask, index: int, tally: Tally) -> None:
    lines = [json.dumps({"id": name, "reason": reason}, ensure_ascii=False) for name, reason in tally.failed]
    write_bytes(f"{task.state}/dead-letters/slice-{index}.jsonl", ("\n".join(lines) + "\n").encode())


async def _verify(side: Side, encoder: PooledEncoder | None) -> tuple[float | None, int]:
    """The smallest cosine of stored vectors to fresh encodings."""
    if encoder is None:
        return None, 0
    sample = await side.sample(SAMPLES)
    if not sample:
        return None, 0
    fresh = np.asarray(await encoder.encode([text for text, _ in sample]), dtype=np.float64)
    stored = np.asarray([vector for _, vector in sample], dtype=np.float64)
    norms = np.linalg.norm(stored, axis=1) * np.linalg.norm(fresh, axis=1)
    cosines = (stored * fresh).sum(axis=1) / np.maximum(norms, 1e-12)
    return float(cosines.min()), len(sample)
